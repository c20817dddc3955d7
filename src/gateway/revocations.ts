/**
 * Revocations: read from Postgres when a message tells of one, and with the sweep what no message told of; each carried out once.
 *
 * What must hold: no session survives that began before the revocation was committed, and none is closed that began later, since 4403
 * is final: a relay may have been paused for minutes, in which somebody was signed out everywhere and has signed in again. How
 * long ago it was, Postgres says, so that no two clocks are compared; a session that began in the same tick (half a second), or
 * within the time that the answer took, counts as older.
 */

import type { Inbox } from '../inbox/types.js';
import type { People } from './people.js';
import type { Sessions } from './sessions.js';
import { ticksAt } from './ticks.js';
import { Together } from './together.js';

export interface RevocationsOwner {
  readonly inbox: Inbox;
  readonly people: People;
  readonly sessions: Sessions;
  failed(what: string, error: unknown): void;
}

/** Messages that one look stands for. */
const toldAtOnce = 1000;

export class Revocations {
  #through = 0;
  /** One look at a time, for all who ask for it meanwhile. */
  readonly #looks = new Together<null, null>(async (asked) => {
    await this.carryOut();
    return asked;
  }, toldAtOnce);

  constructor(private readonly owner: RevocationsOwner) {}

  /** All up to this id were carried out, or were there before this process. */
  get through(): number {
    return this.#through;
  }

  /** Nobody is connected yet. */
  begin(head: number): void {
    this.#through = head;
  }

  /** A message tells of one. Never throws: what cannot be read now is read with the next sweep. */
  told(userId: string): void {
    if (!this.owner.people.hubs.has(userId)) return;
    this.#looks.ask(null).catch((error: unknown) => this.owner.failed('revocation', error));
  }

  /** Carries out those up to `head`, the highest id in Postgres; `before`: what `through` was before that was read. */
  async catchUp(head: number, before: number): Promise<void> {
    // Fewer than there were: a restore, or all are pruned.
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
