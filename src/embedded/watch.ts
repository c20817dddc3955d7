/**
 * What the page shows beside the three people: the way of each event, with its times, and the state of the doorbell.
 *
 * The relay tells each event's outbox, read, store and push time (RelayObserver); the backend tells when its write had
 * committed. Here the two are put together and sent to the pages as Server-Sent Events. It only looks: nothing of the way
 * depends on it.
 *
 * What must hold: a page that reads slowly costs bounded memory; a busy relay costs a bounded number of messages (events of
 * the three always, those of the crowd that reach the three a few a second, all others only counted).
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { EventTrace, RelayObserver } from '../relay/observer.js';
import { nowMs } from '../clock.js';
import type { Write } from './backend.js';
import type { Person } from './people.js';

/** One event's way, as the page gets it. Times on this process's clock, in ms. */
export interface Way {
  readonly id: string;
  readonly source: string;
  readonly op: string;
  readonly actor: Person | null;
  readonly recipients: readonly string[];
  readonly requestId: string | null;
  /** Null where the write was none of the backend's (the simulator's, or psql's). */
  readonly receivedAtMs: number | null;
  readonly committedAtMs: number | null;
  readonly writtenAtMs: number;
  readonly readAtMs: number;
  readonly storedAtMs: number;
  readonly pushedAtMs: number;
}

export interface Doorbell {
  readonly state: 'asleep' | 'awake';
  /** Times the bell woke the relay; times the safety poll did. */
  readonly rings: number;
  readonly polls: number;
  /** Events that went through the relay. */
  readonly events: number;
}

/** State goes to the pages at most this often. */
const stateEveryMs = 100;
/** A trace waits this long for its write to be reported, which happens at about the same time. */
const pairWithinMs = 30;
/** A write that no trace came for (capture off, relay stopped for long) is forgotten. */
const forgetAfterMs = 60_000;
/** Writes that wait for their trace; beyond it the oldest is forgotten. */
const mostWrites = 1_000;
const crowdWaysPerSecond = 4;
const maxPages = 20;
/** Unsent bytes at which a page is cut off; its EventSource comes again by itself. */
const maxUnsentBytes = 262_144;

const tableOfSource: Readonly<Record<string, Write['table']>> = {
  post_like: 'likes',
  post_comment: 'comments',
  user_follow: 'follows',
  'belfry.blocks': 'blocks',
};

export class Watch implements RelayObserver {
  readonly wantsTraces = true;
  readonly #pages = new Set<ServerResponse>();
  readonly #names: ReadonlyMap<string, Person>;
  readonly #cast: ReadonlySet<string>;
  #writes: Write[] = [];
  #waiting: EventTrace[] = [];
  #pairTimer: NodeJS.Timeout | null = null;
  #stateTimer: NodeJS.Timeout | null = null;
  #crowdAllowance = crowdWaysPerSecond;
  #crowdAllowedAtMs = 0;
  #doorbell: Doorbell = { state: 'awake', rings: 0, polls: 0, events: 0 };
  /** The database's clock minus ours. */
  #databaseAheadMs = 0;

  constructor(
    cast: readonly Person[],
    crowd: readonly Person[],
    /** Whatever else a page shall know of the demo; sent with the state. */
    private readonly more: () => object,
  ) {
    this.#cast = new Set(cast.map(({ id }) => id));
    this.#names = new Map([...cast, ...crowd].map((person) => [person.id, person]));
  }

  /** Tells by how much the database's clock is ahead: the shortest of a few round trips decides. */
  async compareClocks(databaseNowMs: () => Promise<number>): Promise<void> {
    let shortest = Infinity;
    for (let attempt = 0; attempt < 5; attempt += 1) {
      const before = nowMs();
      const there = await databaseNowMs();
      const tookMs = nowMs() - before;
      if (tookMs >= shortest) continue;
      shortest = tookMs;
      this.#databaseAheadMs = there - (before + tookMs / 2);
    }
  }

  /** From the backend. While nobody looks no trace is kept, and so no write. */
  wrote(write: Write): void {
    if (this.#pages.size === 0) return;
    this.#writes.push(write);
    if (this.#writes.length > mostWrites) this.#writes.shift();
  }

  // From the relay.

  batch(info: { readonly events: number; readonly traces: readonly EventTrace[] }): void {
    this.#doorbell = { ...this.#doorbell, events: this.#doorbell.events + info.events };
    this.changed();
    for (const trace of info.traces) if (this.#worthShowing(trace)) this.#waiting.push(trace);
    if (this.#waiting.length > 0) this.#pairTimer ??= setTimeout(() => this.#pair(), pairWithinMs);
  }

  doorbell(state: 'asleep' | 'awake', why: 'bell' | 'poll' | 'empty' | 'start'): void {
    const { rings, polls } = this.#doorbell;
    this.#doorbell = {
      ...this.#doorbell,
      state,
      rings: rings + (why === 'bell' ? 1 : 0),
      polls: polls + (why === 'poll' ? 1 : 0),
    };
    this.changed();
  }

  /** Sends the state to all pages, now or within `stateEveryMs`. */
  changed(): void {
    this.#stateTimer ??= setTimeout(() => {
      this.#stateTimer = null;
      this.#send('state', this.#state());
    }, stateEveryMs);
  }

  /** Answers `GET /watch/events`. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    if (this.#pages.size >= maxPages) {
      response.writeHead(503).end();
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    response.write(`retry: 1000\n\n${message('state', this.#state())}`);
    this.#pages.add(response);
    request.on('close', () => this.#pages.delete(response));
    response.on('error', () => this.#pages.delete(response));
  }

  stop(): void {
    if (this.#pairTimer !== null) clearTimeout(this.#pairTimer);
    if (this.#stateTimer !== null) clearTimeout(this.#stateTimer);
    for (const page of this.#pages) page.end();
    this.#pages.clear();
  }

  #state(): object {
    return { doorbell: this.#doorbell, ...this.more() };
  }

  #worthShowing(trace: EventTrace): boolean {
    if (this.#pages.size === 0) return false;
    if (trace.actorId !== null && this.#cast.has(trace.actorId)) return true;
    if (!trace.recipients.some((id) => this.#cast.has(id))) return false;
    const at = nowMs();
    const earned = ((at - this.#crowdAllowedAtMs) / 1000) * crowdWaysPerSecond;
    this.#crowdAllowance = Math.min(this.#crowdAllowance + earned, crowdWaysPerSecond);
    this.#crowdAllowedAtMs = at;
    if (this.#crowdAllowance < 1) return false;
    this.#crowdAllowance -= 1;
    return true;
  }

  #pair(): void {
    this.#pairTimer = null;
    const traces = this.#waiting;
    this.#waiting = [];
    const oldest = nowMs() - forgetAfterMs;
    this.#writes = this.#writes.filter((write) => write.committedAtMs > oldest);
    for (const trace of traces) this.#send('way', this.#wayOf(trace));
  }

  /** The write that an event came from: the oldest unclaimed one of that table, kind and actor. */
  #wayOf(trace: EventTrace): Way {
    const op = trace.op === 'removed' ? 'delete' : 'insert';
    const at = this.#writes.findIndex(
      (write) =>
        write.table === tableOfSource[trace.source] &&
        write.op === op &&
        (trace.actorId === null || write.actorId === trace.actorId),
    );
    const [write] = at === -1 ? [] : this.#writes.splice(at, 1);
    const actorId = trace.actorId ?? write?.actorId;
    return {
      id: trace.id,
      source: trace.source,
      op: trace.op,
      actor: actorId === undefined ? null : (this.#names.get(actorId) ?? { id: actorId, name: 'Someone' }),
      recipients: trace.recipients,
      requestId: write?.requestId ?? null,
      receivedAtMs: write?.receivedAtMs ?? null,
      committedAtMs: write?.committedAtMs ?? null,
      writtenAtMs: trace.writtenAtMs - this.#databaseAheadMs,
      readAtMs: trace.readAtMs,
      storedAtMs: trace.storedAtMs,
      pushedAtMs: trace.pushedAtMs,
    };
  }

  #send(event: string, data: object): void {
    const text = message(event, data);
    for (const page of this.#pages) {
      page.write(text);
      if (page.writableLength > maxUnsentBytes) {
        this.#pages.delete(page);
        page.destroy();
      }
    }
  }
}

function message(event: string, data: object): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
