/**
 * Revocations that no message told of: asked for with the sweep, and carried out once.
 *
 * What must hold: a person's session that began after the revocation stays, so only those are closed that are older beyond doubt, which
 * they are not within a second (ticks, and the way to Postgres). To leave one open takes a lost message and a session that
 * began in the second before, and its token still ends it. To close one too many would take no loss at all: every revocation
 * passes here, and whoever is signed out everywhere and signs in again at once would be thrown out for good (4403 is final).
 */

import type { Inbox } from '../inbox/types.js';
import type { People } from './people.js';
import type { Sessions } from './sessions.js';
import { tickMs, ticksAt } from './ticks.js';

export interface RevocationsOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly sessions: Sessions;
}

export class Revocations {
  /** All up to this id were carried out, or were there before this process. */
  #through = 0;

  constructor(private readonly owner: RevocationsOwner) {}

  /** Nobody is connected yet. */
  begin(head: number): void {
    this.#through = head;
  }

  /** Carries out those up to `head`, the highest id in Postgres. */
  async catchUp(head: number): Promise<void> {
    // Fewer than there were: a restore, or all are pruned.
    this.#through = Math.min(this.#through, head);
    while (this.#through < head) {
      const tick = ticksAt(Date.now());
      const page = await this.owner.inbox.revokedAfter(this.#through);
      for (const { userId, session, ageMs } of page) {
        if (session !== null) this.owner.sessions.named(session)?.close(4403, 'revoked');
        else if (userId !== null) this.closeOlder(userId, tick - ageMs / tickMs);
      }
      this.#through = page.at(-1)?.id ?? head;
    }
  }

  private closeOlder(userId: string, tick: number): void {
    for (const session of [...(this.owner.people.hubs.get(userId)?.sessions ?? [])])
      if (session.sinceTick < tick) session.close(4403, 'revoked');
  }
}
