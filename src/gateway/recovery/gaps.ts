/**
 * Order and gaps of dense streams, the same for people (`seq`) and channels (`offset`).
 *
 * What must hold: a stream is passed on in order, each position once. A publication that comes too early waits a moment, since most gaps are
 * two writers who overtook each other between commit and publication. What is still missing then is fetched, for all streams with a gap in
 * one statement. What can't be fetched is reported as `lost`, once; nothing is skipped silently.
 */

import { inHalves } from '../../halves.js';
import { isOfNoRow } from '../problem.js';

/** A stream as far as this gateway has passed it on. */
export interface Stream<P> {
  /** Below 0: not known yet, everything waits. */
  position: number;
  ahead: Map<number, P> | null;
}

export interface GapOwner<S, P> {
  /** Passes on the next publication and sets `position`. */
  deliver(stream: S, publication: P): void;
  /** What Postgres holds after the position of each stream, ascending, perhaps with holes. */
  fetch(streams: readonly S[]): Promise<Map<S, P[]>>;
  /** Positions between the stream's and `upTo` can't be fetched. */
  lost(stream: S, upTo: number): void;
  /** Whether anybody still listens. */
  known(stream: S): boolean;
  failed(error: unknown): void;
}

/** Publications that may wait per stream; what comes after is fetched. */
const mostAhead = 256;
/** How long a publication that was overtaken may take. */
const graceMs = 30;
/** Pause after a failed fetch. */
const retryMs = 1000;
/** Streams that one statement fetches. */
const streamsAtOnce = 500;

export class Gaps<S extends Stream<P>, P extends { readonly seq: number } | { readonly offset: number }> {
  readonly #behind = new Set<S>();
  /** Heads seen in Postgres, for streams of which no publication came that is as new. */
  readonly #heads = new Map<S, number>();
  #timer: NodeJS.Timeout | null = null;
  #repairing = false;
  #stopped = false;

  constructor(private readonly owner: GapOwner<S, P>) {}

  receive(stream: S, position: number, publication: P): void {
    if (stream.position >= 0) {
      if (position <= stream.position) return;
      if (position === stream.position + 1) {
        this.owner.deliver(stream, publication);
        if (stream.ahead !== null) this.settle(stream);
        return;
      }
    }
    stream.ahead ??= new Map();
    if (stream.ahead.size < mostAhead) stream.ahead.set(position, publication);
    else if (stream.position >= 0) this.#heads.set(stream, Math.max(position, this.#heads.get(stream) ?? 0));
    if (stream.position >= 0) this.missing(stream);
  }

  /** Passes on waiting publications whose turn it is; where some still wait, what lies before them is missing. */
  settle(stream: S): void {
    const ahead = stream.ahead;
    if (ahead === null) return;
    for (let next = ahead.get(stream.position + 1); next !== undefined; next = ahead.get(stream.position + 1)) {
      ahead.delete(stream.position + 1);
      this.owner.deliver(stream, next);
    }
    for (const position of ahead.keys()) if (position <= stream.position) ahead.delete(position);
    if (ahead.size === 0) stream.ahead = null;
    else this.missing(stream);
  }

  /** Postgres has `head`, and a while later the stream is still behind it: fetch. */
  behind(stream: S, head: number): void {
    if (stream.position >= head || stream.position < 0) return;
    this.#heads.set(stream, Math.max(head, this.#heads.get(stream) ?? 0));
    this.missing(stream);
  }

  /** Forgets where a stream stands and what waits for it: both are to be learnt anew. */
  restart(stream: S): void {
    stream.position = -1;
    stream.ahead = null;
    this.forget(stream);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#behind.clear();
    this.#heads.clear();
  }

  private missing(stream: S): void {
    this.#behind.add(stream);
    this.plan(graceMs);
  }

  private plan(delayMs: number): void {
    if (this.#timer !== null || this.#repairing || this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.repair();
    }, delayMs);
  }

  private async repair(): Promise<void> {
    this.#repairing = true;
    const streams: S[] = [];
    for (const stream of this.#behind) {
      if (streams.length >= streamsAtOnce) break;
      if (this.owner.known(stream) && stream.position < this.head(stream)) streams.push(stream);
      else this.forget(stream);
    }
    let delayMs = 0;
    await inHalves(
      streams,
      isOfNoRow,
      async (some) => {
        if (some.length === 0) return;
        const found = await this.owner.fetch(some);
        // Except streams that were restarted meanwhile.
        for (const stream of some) if (this.#behind.has(stream)) this.apply(stream, found.get(stream) ?? []);
      },
      (some, error) => {
        this.owner.failed(error);
        delayMs = retryMs;
        // To the end of the queue: there may be more streams than fit into one round.
        for (const stream of some) if (this.#behind.delete(stream)) this.#behind.add(stream);
      },
    );
    this.#repairing = false;
    if (this.#behind.size > 0) this.plan(delayMs);
  }

  private apply(stream: S, found: readonly P[]): void {
    const head = Math.max(this.head(stream), ...found.slice(-1).map(positionOf));
    stream.ahead ??= new Map();
    for (const publication of found) {
      if (positionOf(publication) > stream.position) stream.ahead.set(positionOf(publication), publication);
    }
    this.forget(stream);
    const before = stream.position;
    this.settle(stream);
    if (stream.position >= head || !this.owner.known(stream)) return this.forget(stream);
    // A full page may have more behind it: the next round fetches on from here.
    if (stream.position > before) return this.behind(stream, head);
    this.forget(stream);
    this.owner.lost(stream, head);
  }

  private forget(stream: S): void {
    this.#behind.delete(stream);
    this.#heads.delete(stream);
  }

  /** The highest position known to exist. */
  private head(stream: S): number {
    let head = this.#heads.get(stream) ?? 0;
    for (const position of stream.ahead?.keys() ?? []) head = Math.max(head, position);
    return head;
  }
}

function positionOf(publication: { readonly seq: number } | { readonly offset: number }): number {
  return 'seq' in publication ? publication.seq : publication.offset;
}
