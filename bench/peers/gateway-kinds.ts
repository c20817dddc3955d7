/** The servers of the gateway bench, and what they are asked to do. */

export const GATEWAY_KINDS = ['uws', 'uws-loop', 'ws', 'socket-io', 'socket-io-uws', 'belfry'] as const;
export type GatewayKind = (typeof GATEWAY_KINDS)[number];

export interface GatewayServerConfig {
  readonly kind: GatewayKind;
  readonly secret: string;
  /** Only for belfry. */
  readonly url: string;
  /** Only for belfry: `limits.sendQueueBytes`. */
  readonly sendQueueBytes?: number;
}

export type GatewayJob =
  | { readonly do: 'status' }
  /** Events to everybody, `burst` within one turn of the event loop. */
  | { readonly do: 'fanout'; readonly events: number; readonly burst: number }
  /** Events of `bytes` to everybody, one every `everyMs`, each with the time at which it was sent. */
  | { readonly do: 'paced'; readonly events: number; readonly everyMs: number; readonly bytes: number }
  /** One event to one of the users 1 to `users`, in turn, as a burst of one. */
  | { readonly do: 'direct'; readonly events: number; readonly users: number };

export interface GatewayAnswer {
  readonly port: number;
  readonly ackPort: number;
  /** Of the whole process so far, garbage collected before. */
  readonly residentMiB: number;
  /** CPU and wall seconds of this job, until the last acknowledgement. */
  readonly cpuSeconds: number;
  readonly seconds: number;
}

/** What a server must be able to do. */
export interface Sender {
  readonly port: number;
  /** The n-th event to everybody. */
  publish(n: number): void;
  /** An event of any content to everybody. */
  publishData?(data: Readonly<Record<string, unknown>>): void;
  /** The n-th event, to one user. */
  send(user: string, n: number): void;
  /** Called before and after the events of one turn, where a server can make use of it. */
  turn?(job: () => void): void;
  /** Called after each job, when everything is delivered and nothing is measured. */
  settle?(): Promise<void>;
}

/** About 200 bytes, as of a like. */
export function payload(n: number): object {
  return {
    post_id: '1',
    likes_count: n,
    user_id: '123456',
    message: 'Somebody whose name has a usual length liked what you wrote',
    timestamp: '2026-01-15T12:00:00.000Z',
  };
}
