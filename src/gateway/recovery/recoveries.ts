/**
 * What sessions that begin are told of their streams, asked for together: after an outage everybody comes at once, and most have missed
 * something.
 *
 * What must hold: a few statements for hundreds of sessions, not for each; those who missed nothing don't wait for those who did; nothing is
 * asked for sessions that ended while they waited: in a storm whoever waits too long comes again, and work for those who have gone delays
 * those who are there.
 */

import type { Inbox, Recovery } from '../../inbox/types.js';
import type { Blocks } from '../people/blocks.js';
import type { PersonHub } from '../people/people.js';
import type { Session } from '../sessions/session.js';
import { Together } from './together.js';

/** Somebody joins: what their stream holds for them is asked for, and whom they have a block relation with. */
export interface JoinRequest {
  readonly session: Session;
  readonly hub: PersonHub;
  readonly since: number | null;
  readonly epoch: string | null;
}

/** Sessions that one batch asks for. */
const sessionsAtOnce = 500;
/** Fewer of those who missed something: what they are told, up to `maxReplay` each, is in memory at once. */
const catchUpsAtOnce = 100;

export class Recoveries {
  readonly #standing: Together<JoinRequest, Recovery | null>;
  readonly #missed: Together<JoinRequest, Recovery | null>;

  constructor(inbox: Inbox, blocks: Blocks) {
    this.#standing = new Together(async (joins) => {
      return await ofThoseThere(joins, async (there) => {
        const strangers = there.filter(({ hub }) => blocks.needed(hub)).map(({ hub }) => hub);
        const [recoveries] = await Promise.all([inbox.recoverEach(there.map(requestOf)), blocks.load(strangers)]);
        return recoveries;
      });
    }, sessionsAtOnce);
    this.#missed = new Together(
      (joins) => ofThoseThere(joins, (there) => inbox.catchUp(there.map(requestOf))),
      catchUpsAtOnce,
    );
  }

  /** Null where the session has ended. Rejects when Postgres can't be asked. */
  async ask(join: JoinRequest): Promise<Recovery | null> {
    return (await this.#standing.ask(join)) ?? (await this.#missed.ask(join));
  }
}

const requestOf = ({ hub, since, epoch }: JoinRequest) => ({ userId: hub.userId, since, epoch });

/** Asks for the sessions that are still open; null for the others. */
async function ofThoseThere(
  joins: readonly JoinRequest[],
  ask: (there: readonly JoinRequest[]) => Promise<readonly (Recovery | null)[]>,
): Promise<readonly (Recovery | null)[]> {
  const there = joins.filter(({ session }) => session.open);
  if (there.length === 0) return joins.map(() => null);
  const recoveries = await ask(there);
  if (there.length === joins.length) return recoveries;
  const bySession = new Map(there.map(({ session }, i) => [session, recoveries[i] ?? null]));
  return joins.map(({ session }) => bySession.get(session) ?? null);
}
