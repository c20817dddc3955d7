/**
 * A WebSocket relay that does to frames what no TCP proxy can: it drops, repeats and reorders what the server pushes.
 *
 * It takes only what a client can notice by the position: live pushes with a `seq` and live channel events. What comes
 * before (a replay may have holes) and what has no position passes as it is; so do all answers, and close codes.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';

export interface Mangler {
  readonly port: number;
  /** Of how many eligible pushes one suffers; 0: none. */
  oneOf(n: number): void;
  /** What it did so far. */
  readonly done: { dropped: number; repeated: number; swapped: number };
  close(): Promise<void>;
}

/** A frame that was held back to be overtaken by the next goes out after this time at the latest. */
const heldMs = 50;

export async function startMangler(target: string): Promise<Mangler> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: ([first]) => first ?? false });
  const done = { dropped: 0, repeated: 0, swapped: 0 };
  let rarity = 0;
  server.on('connection', (near, request) => {
    const far = new WebSocket(`${target}${request.url ?? ''}`, near.protocol === '' ? [] : [near.protocol]);
    const waiting: string[] = [];
    near.on('message', (data: Buffer) => {
      if (far.readyState === WebSocket.OPEN) far.send(data.toString());
      else waiting.push(data.toString());
    });
    far.on('open', () => waiting.forEach((text) => far.send(text)));
    const live = liveness();
    let held: string | null = null;
    const release = (): void => {
      if (held !== null && near.readyState === WebSocket.OPEN) near.send(held);
      held = null;
    };
    far.on('message', (data: Buffer) => {
      const text = data.toString();
      const mangled = live(text) && rarity > 0 && Math.random() * rarity < 1;
      const what = mangled ? Math.floor(Math.random() * 3) : -1;
      if (what === 0) {
        done.dropped++;
        return;
      }
      if (what === 1 && held === null) {
        done.swapped++;
        held = text;
        setTimeout(release, heldMs);
        return;
      }
      if (near.readyState !== WebSocket.OPEN) return;
      near.send(text);
      release();
      if (what === 2) {
        done.repeated++;
        near.send(text);
      }
    });
    // Codes that no frame may carry mean that the connection was cut.
    const close = (socket: WebSocket, code: number, reason: Buffer): void =>
      code === 1005 || code === 1006 ? socket.terminate() : socket.close(code, reason);
    near.on('close', (code, reason: Buffer) =>
      far.readyState === WebSocket.CONNECTING ? far.terminate() : close(far, code, reason),
    );
    far.on('close', (code, reason: Buffer) => close(near, code, reason));
    for (const socket of [near, far]) socket.on('error', () => undefined);
  });
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    done,
    oneOf(n) {
      rarity = n;
    },
    async close() {
      for (const socket of server.clients) socket.terminate();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Of one connection: whether a frame is one whose loss or repetition its position shows. */
function liveness(): (text: string) => boolean {
  let synced = false;
  const heads = new Map<string, number>();
  return (text) => {
    const frame = JSON.parse(text) as {
      readonly event?: string;
      readonly seq?: number;
      readonly channel?: string;
      readonly offset?: number;
      readonly ok?: { readonly channel?: string; readonly offset?: number };
    };
    const { event, channel, seq, offset, ok } = frame;
    if (ok?.channel !== undefined && ok.offset !== undefined) heads.set(ok.channel, ok.offset);
    if (event === 'synced' && channel === undefined) {
      synced = true;
      return false;
    }
    if (channel !== undefined) return offset !== undefined && offset > (heads.get(channel) ?? Infinity);
    return synced && seq !== undefined && event !== undefined;
  };
}
