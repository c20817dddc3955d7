/**
 * Announcements of late.
 *
 * What must hold: each is told once, whether a message or the sweep brings it, also to a session that joins while it goes out. Only
 * whoever joined between the loss of one and the sweep is told it twice, which its id shows.
 */

import type { Inbox } from '../../inbox/types.js';

/** Announcements that are remembered; more than these within one join are told at the next connect. */
const mostRecent = 32;

export interface AnnouncementsOwner {
  readonly inbox: Inbox;
  /** As if the broker had brought it. */
  tell(frame: string): void;
}

export class Announcements {
  #count = 0;
  readonly #recent: { readonly n: number; readonly frame: string }[] = [];
  /** All up to this id have been told, or were there before this process. */
  #through = 0;
  /** Ids above it that have been told; what lies between may have been lost. Empty again at the next sweep. */
  readonly #told = new Set<number>();

  constructor(private readonly owner: AnnouncementsOwner) {}

  /** Where the list stands now. */
  get mark(): number {
    return this.#count;
  }

  /** Nobody is connected yet. */
  begin(head: number): void {
    this.#through = head;
  }

  /** False: it has been told. */
  add(frame: string): boolean {
    const id = idOf(frame);
    if (id <= this.#through || this.#told.has(id)) return false;
    this.#told.add(id);
    this.#recent.push({ n: ++this.#count, frame });
    if (this.#recent.length > mostRecent) this.#recent.shift();
    return true;
  }

  /** Tells what no message brought, up to `head`, the highest id in Postgres. */
  async catchUp(head: number): Promise<void> {
    // Fewer than there were: a restore, or all are pruned.
    if (head < this.#through) this.#told.clear();
    if (head <= this.#through) {
      this.#through = head;
      return;
    }
    const found = await this.owner.inbox.announcementsAfter(this.#through);
    for (const { frame } of found) this.owner.tell(frame);
    this.#through = Math.max(head, found.at(-1)?.id ?? 0);
    for (const id of this.#told) if (id <= this.#through) this.#told.delete(id);
  }

  /** Frames after a mark, without those that were told already. */
  since(mark: number, told: readonly string[]): string[] {
    if (mark === this.#count) return [];
    const known = new Set(told.map(idOf));
    return this.#recent.filter(({ n, frame }) => n > mark && !known.has(idOf(frame))).map(({ frame }) => frame);
  }
}

/** The number behind the `a`. */
function idOf(frame: string): number {
  return Number((JSON.parse(frame) as { data?: { id?: string } }).data?.id?.slice(1));
}
