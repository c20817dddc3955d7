/** What must be true when everything was read: of the tables, of each inbox, and of each page and what it heard on the way. */

import type pg from 'pg';
import { expect } from 'vitest';
import type { NotificationData } from '../../../src/client/index.js';
import type { Town } from './acts.js';
import { pause, type Belfry, type Inbox } from './belfry.js';
import { groupKey, type Effect, type Group, type Kind, type Model, type Row, type State } from './model.js';
import type { Screen } from './screen.js';

/** What a round is about. */
export interface Scene {
  readonly belfry: Belfry;
  readonly pool: pg.Pool;
  readonly town: Town;
  readonly model: Model;
  readonly screens: readonly Screen[];
  /** Every post that there ever was. */
  readonly everyPost: readonly string[];
  /** Committed since everything was read. */
  readonly committed: Effect[];
}

/** Waits until everything was read and every page stands at its head, checks it all, and lets the model begin anew from there. */
export async function check(scene: Scene): Promise<void> {
  const { belfry, town, model, screens } = scene;
  await quiet(scene);
  const inboxes = new Map<string, Inbox>();
  const archives = new Map<string, Inbox>();
  for (const user of town.people) {
    inboxes.set(user, await belfry.inbox(user));
    archives.set(user, await belfry.inbox(user, 'archived'));
  }
  await countersHold(scene);
  const { found, archived } = await tablesHold(scene, foundIn(inboxes), archivedIn(archives));
  inboxesHold(model, found);
  archivesHold(model, archived);
  for (const screen of screens) {
    heardNothingWrong(scene, screen);
    await pageHolds(scene, screen, inboxes.get(screen.user) as Inbox, found);
    screen.begin();
  }
  model.settle(found, archived);
}

/** Asks until the answer is as wanted, for 40 s; then vitest says what differs. */
async function until(ask: () => unknown, wanted: unknown, what: string): Promise<void> {
  for (const end = Date.now() + 40_000; ; await pause(50)) {
    const answer = await ask();
    try {
      return expect(answer, what).toEqual(wanted);
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

async function quiet({ pool, screens, town, belfry }: Scene): Promise<void> {
  await belfry.recovered();
  const began = Date.now();
  await until(
    async () => {
      const { rows } = await pool.query<{ unread: string; waiting: string }>(
        `select (select events from belfry.lag)::text as unread,
                (select count(*) from belfry.notification where due_at is not null and user_id = any($1))::text as waiting`,
        [town.people],
      );
      const heads = await pool.query<{ stream: string; at: number }>(
        `select user_id as stream, seq::int as at from belfry.head
         union all select channel, "offset"::int from belfry.channel_head`,
      );
      const at = new Map(heads.rows.map((head) => [head.stream, head.at]));
      if (Date.now() - began > 5_000) for (const screen of screens) screen.hurry();
      const behind = screens.flatMap(({ user, seq, online, offsets }) =>
        [[user, online ? seq : -1] as const, ...offsets]
          .filter(([stream, known]) => known !== (at.get(stream) ?? 0))
          .map(([stream, known]) => `${user} at ${known} of ${at.get(stream) ?? 0} in ${stream}`),
      );
      return { ...rows[0], behind };
    },
    { unread: '0', waiting: '0', behind: [] },
    'everything is read',
  );
}

/** One notification for each group. `events`: how many it says that it is of. */
type Found = Map<string, { readonly actors: Set<string>; readonly state: State; events: number }>;

/** The group of a notification of this person. */
export function keyOf(user: string, data: NotificationData): string {
  const { post_id: post = null, comment_id: comment = null } = data as { post_id?: string; comment_id?: string };
  return groupKey({ kind: data.type as Kind, recipient: user, post, comment });
}

function foundIn(inboxes: ReadonlyMap<string, Inbox>): Found {
  const found: Found = new Map();
  for (const [user, { items, unseen }] of inboxes) {
    for (const item of items) {
      const key = keyOf(user, item);
      expect(found.has(key), `${key} stands twice in the inbox`).toBe(false);
      const { actors = [], actor_count, event_count = 0, state } = item.data;
      expect(actor_count, `${key}: the number of people`).toBe(actors.length);
      found.set(key, { actors: new Set(actors.map(({ id }) => id)), state: state as State, events: event_count });
    }
    const counted = items.filter(({ data }) => data.state === 'unseen').length;
    expect(unseen, `unseen of ${user}`).toBe(counted);
  }
  return found;
}

function inboxesHold(model: Model, found: Found): void {
  for (const [key, { actors, state }] of found) {
    const group = model.groups.get(key);
    expect(group, `${key} stands in the inbox`).toBeDefined();
    const allowed = model.actors(group as Group, 'in', 'may');
    expect(
      [...actors].filter((actor) => !allowed.has(actor)),
      `${key} is of people who must not stand there`,
    ).toEqual([]);
    expect([...(group as Group).states], `the state of ${key}`).toContain(state);
  }
  for (const [key, group] of model.groups) {
    const missing = [...model.actors(group, 'in')].filter((actor) => found.get(key)?.actors.has(actor) !== true);
    expect(missing, `${key} lacks people`).toEqual([]);
  }
}

/** Who stands behind what was archived, which may be several notifications of a group. */
type Archived = Map<string, Set<string>>;

function archivedIn(archives: ReadonlyMap<string, Inbox>): Archived {
  const archived: Archived = new Map();
  for (const [user, { items }] of archives)
    for (const item of items) {
      const key = keyOf(user, item);
      const actors = archived.get(key) ?? new Set<string>();
      archived.set(key, actors);
      expect(item.data.state, `the state of ${key} among the archived`).toBe('archived');
      for (const { id } of item.data.actors ?? []) {
        expect(actors.has(id), `${id} stands twice behind ${key} among the archived`).toBe(false);
        actors.add(id);
      }
    }
  return archived;
}

function archivesHold(model: Model, archived: Archived): void {
  for (const [key, actors] of archived) {
    const group = model.groups.get(key);
    expect(group, `${key} stands among the archived`).toBeDefined();
    const allowed = model.archived(group as Group, true);
    expect(
      [...actors].filter((actor) => !allowed.has(actor)),
      `${key}, archived, is of people who must not stand there`,
    ).toEqual([]);
  }
  for (const [key, group] of model.groups) {
    const missing = [...model.archived(group, false)].filter((actor) => archived.get(key)?.has(actor) !== true);
    expect(missing, `${key}, archived, lacks people`).toEqual([]);
  }
}

/** The tables behind the inbox say the same as the inbox, but that they know of the suspended too; what they say is returned. */
async function tablesHold(
  { pool, town, model }: Scene,
  shown: Found,
  shownArchived: Archived,
): Promise<{ found: Found; archived: Archived }> {
  const { rows } = await pool.query<
    Pick<Row, 'kind' | 'recipient' | 'post' | 'comment'> & {
      readonly actor: string;
      readonly state: State | 'archived';
    }
  >(
    `select e.actor_id as actor, n.user_id as recipient, n.type as kind, n.object_id as post, n.subject_id as comment, n.state
       from belfry.notification_event e join belfry.notification n on n.id = e.notification_id
      where e.removed_at is null and not n.withdrawn and n.user_id = any($1)`,
    [town.people],
  );
  const found: Found = new Map();
  const archived: Archived = new Map();
  for (const { actor, state, ...of } of rows) {
    const key = groupKey(of);
    if (state === 'archived') {
      archived.set(key, (archived.get(key) ?? new Set()).add(actor));
      continue;
    }
    const group = found.get(key) ?? { actors: new Set(), state, events: 0 };
    found.set(key, group);
    group.actors.add(actor);
    // Everybody likes, comments or follows once.
    group.events += 1;
  }
  const here = (actors: ReadonlySet<string>): string[] => [...actors].filter((actor) => !model.gone.has(actor)).sort();
  const stored = [...found].map(([key, group]) => [key, { ...group, actors: here(group.actors) }] as const);
  expect(
    new Map([...shown].map(([key, group]) => [key, { ...group, actors: [...group.actors].sort() }])),
    'the inboxes, by belfry.notification_event',
  ).toEqual(new Map(stored.filter(([, { actors }]) => actors.length > 0)));
  const storedArchived = [...archived].map(([key, actors]) => [key, here(actors)] as const);
  expect(
    new Map([...shownArchived].map(([key, actors]) => [key, [...actors].sort()])),
    'the archived, by belfry.notification_event',
  ).toEqual(new Map(storedArchived.filter(([, actors]) => actors.length > 0)));
  const failed = await pool.query('select source from belfry.dead_event union all select source from belfry.lost');
  expect(failed.rows).toEqual([]);
  return { found, archived };
}

const countsSql = (likes: string, comments: string): string =>
  `select p.id::text, (${likes})::int as likes_count, (${comments})::int as comments_count from unnest($1::bigint[]) p(id) order by p.id`;

/** Counters are what the application's tables hold, in Belfry's table and on every page. */
async function countersHold({ pool, everyPost, screens }: Scene): Promise<void> {
  const counter = (source: string): string =>
    `select coalesce(sum(c.count), 0) from belfry.counter c where c.source = '${source}' and c.object_id = p.id::text`;
  const real = await pool.query<{ id: string; likes_count: number; comments_count: number }>(
    countsSql(
      'select count(*) from likes l where l.post_id = p.id',
      'select count(*) from comments c where c.post_id = p.id and c.deleted_at is null',
    ),
    [everyPost],
  );
  const kept = await pool.query(countsSql(counter('post_like'), counter('post_comment')), [everyPost]);
  expect(kept.rows, 'belfry.counter').toEqual(real.rows);
  const told = Object.fromEntries(real.rows.map(({ id, ...counts }) => [`post:${id}`, counts]));
  for (const screen of screens)
    await until(() => Object.fromEntries(screen.counts), told, `the counters told to ${screen.user}`);
}

/** The page is the inbox, in its order. */
async function pageHolds({ belfry, model }: Scene, screen: Screen, inbox: Inbox, found: Found): Promise<void> {
  const untold = (item: NotificationData): boolean => model.groups.get(keyOf(screen.user, item))?.untold === true;
  staleHolds(model, screen, found, untold);
  // As if it had fetched: a window that ends says nothing to those who want to hear nothing, and nothing tells of an account.
  const present = new Map(inbox.items.map((item) => [item.id, item]));
  for (const [id, { data }] of screen.list)
    if (!present.has(id) && data.data.state !== 'archived' && ofGone(model, screen, data, found))
      screen.list.delete(id);
  for (const item of inbox.items) {
    const seq = screen.list.get(item.id)?.seq;
    // Also where it was taken away before what came in that window.
    if (untold(item)) screen.list.set(item.id, { seq: seq ?? screen.places.get(item.id) ?? -1, data: item });
    else if (ofGone(model, screen, item, found))
      screen.list.set(item.id, { seq: screen.places.get(item.id) ?? -1, data: item });
  }
  const shown = ({ id, type, message, data }: NotificationData) => ({
    ...{ id, type, message, state: data.state, actors: data.actors, count: data.actor_count, object: data['object'] },
  });
  expect(screen.items().map(shown), `the page of ${screen.user}`).toEqual(inbox.items.map(shown));
  expect(screen.problems, `the page of ${screen.user}`).toEqual([]);
  // Those who are connected are counted again within about a minute (test/gateway/again.long.ts), who comes anew at once.
  if (model.recounts(screen.user)) await screen.reload();
  await until(() => screen.unseen, inbox.unseen, `the badge of ${screen.user}`);
  expect((await belfry.inbox(screen.user)).seq, 'nothing moved meanwhile').toBe(inbox.seq);
}

/** Whether somebody stands behind it who was suspended once: how it was told last hangs on when that was. */
function ofGone(model: Model, { user }: Screen, item: NotificationData, found: Found): boolean {
  return [...(found.get(keyOf(user, item))?.actors ?? [])].some((actor) => model.everGone.has(actor));
}

/** Whatever a page was not told of accounts, it names nobody who has left, and lacks nobody else. */
function staleHolds(model: Model, screen: Screen, found: Found, untold: (item: NotificationData) => boolean): void {
  const held = new Map(screen.items().map((item) => [keyOf(screen.user, item), item]));
  for (const [key, item] of held) {
    if (untold(item)) continue;
    const stand = found.get(key)?.actors ?? new Set();
    const left = (item.data.actors ?? []).filter(({ id }) => !stand.has(id));
    expect(left, `the page of ${screen.user} still shows people behind ${key}`).toEqual([]);
  }
  for (const [key, { actors }] of found) {
    const group = model.groups.get(key);
    if (group?.recipient !== screen.user || group.untold) continue;
    const named = new Set(held.get(key)?.data.actors?.map(({ id }) => id));
    const missing = [...actors].filter((actor) => !named.has(actor) && !model.everGone.has(actor));
    expect(missing, `the page of ${screen.user} lacks people behind ${key}`).toEqual([]);
  }
}

function heardNothingWrong({ model, committed }: Scene, screen: Screen): void {
  const { user, heard, told, comments } = screen;
  const rings = new Map<string, number>();
  const history = (key: string): string =>
    JSON.stringify(
      heard
        .filter(({ data }) => keyOf(user, data) === key)
        .map(({ seq, held, data: { id, data } }) => [seq, id, held, data]),
    );
  for (const { data, held } of heard) {
    const key = keyOf(user, data);
    const group = model.groups.get(key);
    const wrong = (data.data.actors ?? []).filter(({ id }) => group?.possible.has(id) !== true);
    expect(wrong, `${user} heard of ${key}, but not of these people may they ever have`).toEqual([]);
    if (!data.data.alert || group === undefined) continue;
    rings.set(key, (rings.get(key) ?? 0) + 1);
    expect(group.mayRing, `${key} rings, and nothing is new`).toBe(true);
    expect(
      held === null || held === 'read' || group.emptied,
      `${key} rings, and was ${held ?? ''} already: ${history(key)}`,
    ).toBe(true);
  }
  for (const [key, group] of model.groups)
    if (group.mustRing && group.recipient === user) expect(rings.get(key), `rings of ${key}: ${history(key)}`).toBe(1);

  for (const { actor, channel } of told)
    expect(model.apart(user, actor), `${user} was told in ${channel} of ${actor}, whom a block keeps away`).toBe(false);
  const shown = (id: string): number => comments.filter((one) => one === id).length;
  const times = new Map<string, number>();
  for (const effect of committed) {
    const key = effect.does === 'add' ? effect.row.key : effect.does === 'remove' ? effect.key : '';
    times.set(key, (times.get(key) ?? 0) + 1);
  }
  for (const effect of committed) {
    if (effect.does !== 'add' || effect.row.comment === null || times.get(effect.row.key) !== 1) continue;
    const { comment, actor, post } = effect.row;
    const gone = committed.some((other) => other.does === 'removePost' && other.post === post);
    if (!gone && screen.complete && model.near(user, actor) && model.away(actor, false))
      expect(shown(comment), `comment ${comment} is told`).toBe(1);
    else if (model.away(actor, true))
      expect(shown(comment), `comment ${comment} of a suspended account is told`).toBe(0);
    else expect(shown(comment), `comment ${comment} is told`).toBeLessThanOrEqual(1);
  }
}
