/**
 * A history of four people who do everything to each other, somebody who then narrows what may be seen, and everything
 * that Belfry says from then on, held against the oracle (society.ts): lists, badges, resume, gaps, live frames, windows
 * that end, replays, and what stands in the inbox.
 *
 * The crowd is dense, so that whoever narrows something has something to lose by it; what is left to chance is who, in
 * which order, and where the stream is cut.
 */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addPost, addUsers } from '../support/social.js';
import type { TestDatabase } from '../support/postgres.js';
import type { Batches } from './batches.js';
import { lasting, lookAtSociety } from './society.js';
import type { Reason, Society, Told } from './society.js';
import { useSocialBatches } from './world.js';
import { ageWindows } from '../support/windows.js';

/** SQL over people $1 (who) and $2 (whom) and post $3. */
const narrowing = {
  block: 'insert into blocks values ($1, $2) on conflict do nothing',
  mute: `insert into mutes values ($1, $2, now() + interval '1 hour') on conflict do nothing`,
  'mute a thread': 'insert into thread_mutes values ($1, $3) on conflict do nothing',
  suspend: 'update users set deleted_at = now() where id = $2',
  'delete a post': 'delete from posts where id = $3',
  'hide a post': `with gone as (delete from follows) update posts set audience = 'followers' where id = $3`,
} as const;

type Narrowing = keyof typeof narrowing;
const narrowings = Object.keys(narrowing) as Narrowing[];

/** SQL over person $1 and the posts that there are. */
const deeds = {
  like: 'insert into likes select $1, p.id from p on conflict do nothing',
  unlike: 'delete from likes using p where user_id = $1 and post_id = p.id',
  comment: `insert into comments (user_id, post_id, content) select $1, p.id, 'text' from p`,
  mention: `, c as (insert into comments (user_id, post_id, content) select $1, p.id, 'text' from p returning id, post_id)
    insert into mentions select c.id, c.post_id, $1, u.id from c, u`,
  repost: 'insert into reposts select $1, p.id, 1 from p on conflict do nothing',
  follow: 'insert into follows select $1, u.id from u where u.id <> $1 on conflict do nothing',
} as const;

type Deed = readonly [what: keyof typeof deeds, who: number];

const everybody = [0, 1, 2, 3] as const;

/** A part of what can be done, in any order. */
const someDeeds = (least: number, most: number, ...whats: readonly (keyof typeof deeds)[]): fc.Arbitrary<Deed[]> => {
  const all = whats.flatMap((what) => everybody.map((who): Deed => [what, who]));
  const size = (part: number): number => Math.round(all.length * part);
  return fc.shuffledSubarray(all, { minLength: size(least), maxLength: size(most) });
};

interface Narrowed {
  readonly what: Narrowing;
  readonly who: number;
  readonly whom: number;
  readonly post: number;
}

const narrowed = (what: fc.Arbitrary<Narrowing>): fc.Arbitrary<Narrowed> =>
  fc
    .record({ what, who: fc.constantFrom(0, 0, 1, 1, 2, 3), other: fc.integer({ min: 1, max: 3 }), post: fc.nat(1) })
    .map(({ other, ...rest }) => ({ ...rest, whom: (rest.who + other) % 4 }));

interface History {
  readonly before: readonly Narrowed[];
  readonly first: readonly Deed[];
  readonly second: readonly Deed[];
  readonly marks: readonly {
    readonly state: 'seen' | 'read' | 'archived';
    readonly who: number;
    readonly through: number;
  }[];
  readonly narrowed: readonly Narrowed[];
  readonly third: readonly Deed[];
  readonly pageSize: number;
  /** Windows end before the relay reads what was narrowed. */
  readonly flushFirst: boolean;
}

/** Histories in which `what` happens at last, after anything may have happened before. */
const historyOf = (what: Narrowing): fc.Arbitrary<History> =>
  fc.record({
    before: fc.array(narrowed(fc.constantFrom('block', 'mute', 'mute a thread')), { maxLength: 1 }),
    // A few begin what most then join: those wait for a window to end.
    first: someDeeds(0.25, 0.5, 'like', 'comment', 'repost', 'follow'),
    second: someDeeds(0.8, 1, 'like', 'mention', 'follow', 'repost'),
    marks: fc.array(
      fc.record({
        state: fc.constantFrom('seen' as const, 'read' as const, 'archived' as const),
        who: fc.nat(3),
        through: fc.nat(6),
      }),
      { maxLength: 2 },
    ),
    narrowed: fc.tuple(narrowed(fc.constant(what))),
    third: someDeeds(0.75, 1, 'unlike', 'comment', 'mention', 'like', 'follow'),
    pageSize: fc.constantFrom(1, 7, 5000),
    flushFirst: fc.constantFrom(true, true, false),
  });

/** A test for each kind of narrowing, with as many histories as `runs` says. To be called at the top of a file. */
export function itNeverShows(runs: { readonly numRuns: number; readonly seed?: number }, timeout: number): void {
  const social = useSocialBatches();

  describe('nobody is shown what they must not see, before and after the relay heard of it', () => {
    it.each(narrowings)('%s', { timeout }, async (what) => {
      await fc.assert(
        fc.asyncProperty(historyOf(what), (history) => play(social.database, social.batches, history)),
        { ...runs, endOnFailure: true },
      );
    });
  });
}

/** Plays the history on a database with real triggers; throws where anything is shown that must not be. */
async function play(database: TestDatabase, batches: Batches, history: History): Promise<void> {
  const { pool } = database;
  const people = await addUsers(pool, 'Ada', 'Bo', 'Cleo', 'Dan');
  const posts = [await addPost(pool, people[0] ?? ''), await addPost(pool, people[1] ?? '')];
  const { rows } = await pool.query<{ now: Date }>('select clock_timestamp() as now');
  const since = rows[0]?.now ?? new Date(0);
  const stage = new Stage(database, batches, people);

  const act = async (all: readonly Deed[]): Promise<void> => {
    const from = `with p as (select id from posts where id = any('{${posts.join()}}')), u as (select unnest('{${people.join()}}'::bigint[]) as id)`;
    const texts = all.map(([what, who]) => `${from} ${deeds[what].replaceAll('$1', people[who] ?? '')}`);
    await pool.query(texts.join(';\n'));
  };
  const narrow = async (all: readonly Narrowed[]): Promise<void> => {
    for (const { what, who, whom, post } of all) {
      const value = (text: string): string =>
        ({ $1: people[who], $2: people[whom], $3: posts[post] })[text as '$1' | '$2' | '$3'] ?? '';
      await pool.query(
        narrowing[what]
          .replace('delete from follows', `delete from follows where followed_id = any('{${people.join()}}')`)
          .replaceAll(/\$[123]/g, value),
      );
    }
  };

  await narrow(history.before);
  await batches.run();
  await act(history.first);
  await batches.run(history.pageSize);
  await act(history.second);
  await batches.run(history.pageSize);
  await stage.frames('live');
  for (const { state, who, through } of history.marks)
    await batches.inbox.mark(people[who] ?? '', state, { through }, null);

  await narrow(history.narrowed);
  await stage.reads('before the relay has heard of it');
  const standing = await stage.forbidden();
  if (history.flushFirst) {
    await stage.endWindows();
    // Of what may not be shown at all a window says nothing; the relay takes it back when it hears of it.
    const isGone = history.narrowed.some(({ what }) => what === 'delete a post');
    await stage.frames('a window that ends before the relay has heard of it', isGone ? undefined : ['notification']);
  }
  await batches.run(history.pageSize);
  await stage.frames('the relay hears of it');
  await stage.stored(standing, 'after the relay has heard of it');

  await act(history.third);
  await batches.run(history.pageSize);
  await stage.frames('what happens afterwards');
  await stage.endWindows();
  await stage.frames('a window that ends afterwards');
  await stage.stored(standing, 'what happened afterwards');
  for (const mode of ['deliver', 'rebuild'] as const) {
    await batches.replay(mode, { since });
    await stage.frames(`replay, ${mode}`);
    await stage.stored(standing, `replay, ${mode}`);
  }
  await stage.reads('at the end');
}

interface Frame {
  readonly event: string;
  readonly data: Told;
}

class Stage {
  constructor(
    private readonly database: TestDatabase,
    private readonly batches: Batches,
    private readonly people: readonly string[],
  ) {}

  private society(): Promise<Society> {
    return lookAtSociety(this.database.pool, this.people);
  }

  /** What was pushed since the last look; `events`: nothing else than these. */
  async frames(when: string, events?: readonly string[]): Promise<void> {
    const society = await this.society();
    for (const publication of this.batches.heard()) {
      if (publication.to !== 'user' || !this.people.includes(publication.userId)) continue;
      if (events !== undefined) expect(events, when).toContain((JSON.parse(publication.frame) as Frame).event);
      this.check(society, publication.userId, [publication.frame], `${when}: pushed`);
    }
  }

  /** Every way to read, which must agree with each other besides. */
  async reads(when: string): Promise<void> {
    const { inbox } = this.batches;
    const society = await this.society();
    const epoch = await inbox.epoch();
    const badges = await inbox.badges(this.people);
    const each = await inbox.catchUp(this.people.map((userId) => ({ userId, since: 0, epoch })));
    const missed = await inbox.framesAfter(new Map(this.people.map((userId) => [userId, 0])));
    const read = async (userId: string, i: number): Promise<void> => {
      const list = await inbox.list(userId, { limit: 100, before: null, state: null });
      const archived = await inbox.list(userId, { limit: 100, before: null, state: 'archived' });
      const items = list.items as Told[];
      for (const item of [...items, ...(archived.items as Told[])])
        expect(society.wrongWith(userId, item), `${when}: list of ${userId}`).toEqual([]);
      for (const frames of [each[i]?.frames ?? [], missed.get(userId) ?? []])
        this.check(
          society,
          userId,
          frames.map(({ frame }) => frame),
          `${when}: resumed`,
        );
      const unseen = items.filter(({ data }) => data.state === 'unseen').length;
      const unread = items.filter(({ data }) => data.state !== 'read').length;
      for (const told of [list, each[i], badges.get(userId)])
        expect(told, `${when}: numbers of ${userId}`).toMatchObject({ unseen, unread });
    };
    await Promise.all(this.people.map(read));
  }

  private check(society: Society, userId: string, frames: readonly string[], when: string): void {
    for (const { event, data } of frames.map((frame) => JSON.parse(frame) as Frame))
      if (event === 'notification') expect(society.wrongWith(userId, data), `${when} to ${userId}`).toEqual([]);
  }

  async endWindows(): Promise<void> {
    await ageWindows(this.database.pool, '1 min', this.people);
    await this.batches.flush();
  }

  /** Events that stand in an inbox though their recipient must not be shown them, each with the reasons. */
  async forbidden(): Promise<Map<string, Reason[]>> {
    const society = await this.society();
    const { rows } = await this.database.pool.query<{
      event: string;
      user_id: string;
      actor_id: string | null;
      type: string;
      post: string | null;
    }>(
      `select concat_ws(' ', e.source, e.key, 'for', e.user_id) as event, e.user_id, e.actor_id, n.type, n.object_id as post
         from belfry.notification_event e join belfry.notification n on n.id = e.notification_id
        where e.user_id = any($1) and e.removed_at is null and not n.withdrawn`,
      [this.people],
    );
    const found = new Map<string, Reason[]>();
    for (const { event, user_id: recipient, actor_id: actor, type, post } of rows) {
      const reasons = society.reasons({ recipient, actor, type, post });
      if (reasons.length > 0) found.set(event, reasons);
    }
    return found;
  }

  /** Nothing forbidden came in, and what a relay takes back is gone; the rest is only hidden. */
  async stored(standing: ReadonlyMap<string, Reason[]>, when: string): Promise<void> {
    for (const [event, reasons] of await this.forbidden()) {
      expect(standing.has(event), `${when}: ${event} is stored: ${reasons.join(', ')}`).toBe(true);
      expect(
        reasons.filter((reason) => lasting.has(reason)),
        `${when}: ${event} still stands`,
      ).toEqual([]);
    }
  }
}
