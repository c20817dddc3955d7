/**
 * A crowd for tests of crashes: writers that like, unlike and comment as a backend would, pages that live by pushes alone, and
 * the checker: every committed event is in the inbox exactly once, counters equal the tables, and each page holds the inbox.
 */
import jwt from 'jsonwebtoken';
import pg from 'pg';
import { expect } from 'vitest';
import { WebSocket } from 'ws';
import { connect } from '../../src/client/index.js';
import type { Client, NotificationData, Position } from '../../src/client/index.js';
import { seeded } from '../outbox/rig.js';
import { addPost, addUsers, testSecret } from '../support/social.js';

export interface Crowd {
  /** Stops writing; returns how many writes were answered. */
  quiet(): Promise<number>;
  /** Waits until nothing is unread or pending and every page stands at its head, then checks everything. */
  check(): Promise<void>;
  close(): Promise<void>;
}

/** What the config should say for it beside the social app. */
export const crowdConfig = (port: number): Record<string, unknown> => ({
  server: { host: '127.0.0.1', port },
  aggregation: { like: { window: '300ms', early: [10], groupFor: '12h', sample: 8 } },
  limits: { connectionsPerAddress: 1000, handshakesPerSecond: 1000, httpPerMinute: 100_000 },
});

/** Belfry is migrated and its gateway listens at `port` now and then. Twelve people, four posts each. */
export async function startCrowd(url: string, port: number, seed: number): Promise<Crowd> {
  const pool = new pg.Pool({ connectionString: url, max: 8, connectionTimeoutMillis: 5_000 });
  // A server that is killed takes idle connections with it.
  pool.on('error', () => undefined);
  const users = await addUsers(pool, ...Array.from({ length: 12 }, (_, i) => `Person ${String(i)}`));
  const posts = await Promise.all(users.flatMap((user) => Array.from({ length: 4 }, () => addPost(pool, user))));
  const { rows } = await pool.query<{ epoch: string }>('select epoch from belfry.relay');
  const pages = users.map((user) => new Page(user, port, rows[0]?.epoch ?? ''));
  const writing = new AbortController();
  const writers = [1, 2, 3].map((n) => write(pool, users, posts, writing.signal, seeded(seed * 10 + n)));
  return {
    async quiet() {
      writing.abort();
      return (await Promise.all(writers)).reduce((sum, n) => sum + n, 0);
    },
    async check() {
      await settled(pool, pages);
      await exactlyOnce(pool);
      for (const page of pages) await holdsTheInbox(page, port);
    },
    async close() {
      writing.abort();
      for (const page of pages) page.close();
      await Promise.all(writers);
      await pool.end();
    },
  };
}

/** What a page holds that fetches at first and at each gap, and lives by pushes in between. */
class Page {
  readonly list = new Map<string, NotificationData>();
  readonly problems: string[] = [];
  private client: Client;
  private last = 0;

  constructor(
    readonly userId: string,
    private readonly port: number,
    epoch: string,
  ) {
    this.client = this.open({ userId, seq: 0, epoch });
  }

  close(): void {
    this.client.close();
  }

  get seq(): number {
    return this.client.position?.seq ?? 0;
  }

  get status(): string {
    return this.client.status.status;
  }

  /** As if the page were loaded anew with what it holds, where the client would wait for up to half a minute. */
  hurry(): void {
    const { position } = this.client;
    if (this.status !== 'waiting' || position === null) return;
    this.client.close();
    this.client = this.open(position);
  }

  private open(position: Position): Client {
    const token = jwt.sign({ sub: this.userId }, testSecret, { expiresIn: '1h' });
    const url = `ws://127.0.0.1:${String(this.port)}/ws`;
    const client = connect({ url, token: () => token, WebSocket, position });
    client.on('notification', (data, { seq }) => {
      this.move(seq);
      this.list.set(data.id, data);
    });
    client.on('withdrawn', ({ id }, { seq }) => {
      this.move(seq);
      this.list.delete(id);
    });
    client.on('gap', (gap) => this.problems.push(`gap ${JSON.stringify(gap)}`));
    return client;
  }

  private move(seq: number | undefined): void {
    if (seq === undefined) return;
    if (seq <= this.last) this.problems.push(`${String(seq)} after ${String(this.last)}`);
    this.last = seq;
  }
}

/** Every statement is a transaction of its own; one that fails with its server may have been committed all the same. */
async function write(
  pool: pg.Pool,
  users: readonly string[],
  posts: readonly string[],
  signal: AbortSignal,
  random: () => number,
): Promise<number> {
  const one = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  let answered = 0;
  while (!signal.aborted) {
    const [user, post, dice] = [one(users), one(posts), random()];
    const [sql, values] =
      dice < 0.5
        ? ['insert into likes (user_id, post_id) values ($1, $2) on conflict do nothing', [user, post]]
        : dice < 0.7
          ? ['delete from likes where user_id = $1 and post_id = $2', [user, post]]
          : dice < 0.9
            ? [`insert into comments (post_id, user_id, content) values ($2, $1, 'hello')`, [user, post]]
            : ['delete from comments where id = (select max(id) from comments where user_id = $1)', [user]];
    try {
      await pool.query(sql, values);
      answered += 1;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return answered;
}

/** Until nothing is unread, no window waits, and every page stands at its head. */
async function settled(pool: pg.Pool, pages: readonly Page[]): Promise<void> {
  await expect
    .poll(
      async () => {
        const { rows } = await pool.query<{ unread: string; due: string }>(
          'select (select events from belfry.lag)::text as unread, (select count(*) from belfry.notification where due_at is not null)::text as due',
        );
        const heads = await pool.query<{ user_id: string; seq: string }>('select user_id, seq from belfry.head');
        for (const page of pages) page.hurry();
        const at = new Map(heads.rows.map(({ user_id, seq }) => [user_id, Number(seq)]));
        const behind = pages
          .filter(({ seq, userId }) => seq < (at.get(userId) ?? 0))
          .map(({ seq, userId, status }) => `${status} at ${seq} of ${at.get(userId) ?? 0}`);
        return { ...rows[0], behind };
      },
      { timeout: 40_000, interval: 200 },
    )
    .toEqual({ unread: '0', due: '0', behind: [] });
}

/** Inbox against tables: the same rows, neither more nor fewer, and counters equal to counts. */
async function exactlyOnce(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ what: string; n: string }>(`
    with expected as (
      select 'post_like' as source, jsonb_build_array(l.user_id::text, l.post_id::text)::text as key, p.user_id::text as user_id
        from likes l join posts p on p.id = l.post_id where p.user_id <> l.user_id
      union all
      select 'post_comment', jsonb_build_array(c.id::text)::text, p.user_id::text
        from comments c join posts p on p.id = c.post_id where p.user_id <> c.user_id and c.deleted_at is null
    ), stored as (
      select source, key, user_id from belfry.notification_event where removed_at is null
    )
    select 'missing' as what, count(*)::text as n from (select * from expected except all select * from stored) x
    union all select 'too many', count(*)::text from (select * from stored except all select * from expected) x
    union all select 'wrong event count', count(*)::text from belfry.notification n
      where n.event_count <> (select count(*) from belfry.notification_event e where e.notification_id = n.id and e.removed_at is null)
    union all select 'wrong actor count', count(*)::text from belfry.notification n
      where n.actor_count <> (select count(distinct e.actor_id) from belfry.notification_event e where e.notification_id = n.id and e.removed_at is null)
    union all select 'wrong counter', count(*)::text from posts p
      where (select count(*) from likes l where l.post_id = p.id) <> coalesce((select c.count from belfry.counter c where c.source = 'post_like' and c.object_id = p.id::text), 0)
         or (select count(*) from comments l where l.post_id = p.id) <> coalesce((select c.count from belfry.counter c where c.source = 'post_comment' and c.object_id = p.id::text), 0)
    union all select 'dead', count(*)::text from belfry.dead_event
    union all select 'lost', count(*)::text from belfry.lost`);
  expect(Object.fromEntries(rows.map(({ what, n }) => [what, n]))).toEqual({
    missing: '0',
    'too many': '0',
    'wrong event count': '0',
    'wrong actor count': '0',
    'wrong counter': '0',
    dead: '0',
    lost: '0',
  });
}

async function holdsTheInbox(page: Page, port: number): Promise<void> {
  expect(page.problems).toEqual([]);
  const token = jwt.sign({ sub: page.userId }, testSecret, { expiresIn: '1h' });
  const items = new Map<string, NotificationData>();
  for (let before = ''; ;) {
    const response = await fetch(`http://127.0.0.1:${String(port)}/api/notifications?limit=100${before}`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const body = (await response.json()) as { items: NotificationData[]; next: string | null };
    for (const item of body.items) items.set(item.id, item);
    if (body.next === null) break;
    before = `&before=${body.next}`;
  }
  expect([...page.list.keys()].sort()).toEqual([...items.keys()].sort());
  for (const [id, item] of items) {
    expect(page.list.get(id)?.message).toBe(item.message);
    expect(page.list.get(id)?.data.event_count).toBe(item.data.event_count);
  }
}
