/** Announcements of late, so that a session that joined while one went out is told it too, and once. */

/** Announcements that are remembered; more than these within one join are told at the next connect. */
const mostRecent = 32;

export class Announcements {
  #count = 0;
  readonly #recent: { readonly n: number; readonly frame: string }[] = [];

  /** Where the list stands now. */
  get mark(): number {
    return this.#count;
  }

  add(frame: string): void {
    this.#recent.push({ n: ++this.#count, frame });
    if (this.#recent.length > mostRecent) this.#recent.shift();
  }

  /** Frames after a mark, without those that were told already. */
  since(mark: number, told: readonly string[]): string[] {
    if (mark === this.#count) return [];
    const known = new Set(told.map(idOf));
    return this.#recent.filter(({ n, frame }) => n > mark && !known.has(idOf(frame))).map(({ frame }) => frame);
  }
}

function idOf(frame: string): unknown {
  return (JSON.parse(frame) as { data?: { id?: unknown } }).data?.id;
}
