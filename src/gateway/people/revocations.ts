/**
 * Revocations: read from Postgres when a message tells of one; those whose message was lost, with the sweep. Each is carried out once.
 *
 * What must hold: every session that began before the revocation was committed is closed, and none that began later, since 4403 is final:
 * the relay may have been paused for minutes, in which somebody was signed out everywhere and signed in again. Postgres says how long ago
 * the commit was, so that no two clocks are compared; a session that began in the same half second, or while the answer was on its way,
 * counts as older.
 */

import type { Inbox } from '../../inbox/types.js';
import type { People } from './people.js';
import type { Sessions } from '../sessions/sessions.js';
import { ticksAt } from '../sessions/ticks.js';
import { Together } from '../recovery/together.js';

export interface RevocationsOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly sessions: Sessions;
  failed(what: string, error: unknown): void;
}

/** How many messages are answered with one look. */
const toldAtOnce = 1000;

export class Revocations {
  #through = 0;
  /** One look at a time, for all who ask for it meanwhile. */
  readonly #looks = new Together<null, null>(async (asked) => {
    await this.carryOut();
    return asked;
  }, toldAtOnce);

  constructor(private readonly owner: RevocationsOwner) {}

  /** Revocations up to this id were carried out, or are older than this process. */
  get through(): number {
    return this.#through;
  }

  /** Begins behind what is there now; to be called before anybody is connected. */
  begin(head: number): void {
    this.#through = head;
  }

  /** A message tells of a revocation. Never throws: what can't be read now is read with the next sweep. */
  told(userId: string): void {
    if (!this.owner.people.hubs.has(userId)) return;
    this.#looks.ask(null).catch((error: unknown) => this.owner.failed('revocation', error));
  }

  /** Carries out those up to `head`, the highest id in Postgres; `before`: what `through` was before that was read. */
  async catchUp(head: number, before: number): Promise<void> {
    // The highest id is lower than before: a restore, or all were pruned.
    if (head < before) this.#through = head;
    if (head > this.#through) await this.#looks.ask(null);
  }

  private async carryOut(): Promise<void> {
    for (;;) {
      const page = await this.owner.inbox.revokedAfter(this.#through);
      const nowMs = Date.now();
      for (const { userId, session, ageMs } of page) {
        if (session !== null) this.owner.sessions.named(session)?.close(4403, 'revoked');
        else if (userId !== null) this.closeOlder(userId, ticksAt(nowMs - ageMs));
      }
      const last = page.at(-1);
      if (last === undefined) return;
      this.#through = last.id;
    }
  }

  private closeOlder(userId: string, tick: number): void {
    for (const session of [...(this.owner.people.hubs.get(userId)?.sessions ?? [])])
      if (session.sinceTick <= tick) session.close(4403, 'revoked');
  }
}
