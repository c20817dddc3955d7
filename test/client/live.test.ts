/**
 * The client against the running app on a real Postgres: resumed to the very event, one gap where there is one, tokens that
 * end. chaos.test.ts has many of them on bad networks.
 */

import jwt from 'jsonwebtoken';
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket } from 'ws';
import type { Frame } from '../../src/client/state.js';
import { connect, type Client, type Gap, type NotificationData } from '../../src/client/index.js';
import type { TestDatabase } from '../support/postgres.js';
import type { Proxy } from '../support/proxy.js';
import { addComment, addPost, addUsers, testSecret } from '../support/social.js';
import { notificationList } from '../../src/client/list.js';
import { startRunning, token, until, type Running } from './running.js';

let running: Running;
let database: TestDatabase;
let proxy: Proxy;

beforeAll(async () => {
  running = await startRunning();
  ({ database, proxy } = running);
});

afterAll(() => running?.stop());

/** A person's screen: what a page would hold that fetches at first and at each gap, and lives by pushes in between. */
class Screen {
  readonly client: Client;
  readonly list = new Map<string, NotificationData>();
  readonly comments: number[] = [];
  readonly seqs: number[] = [];
  readonly problems: string[] = [];
  readonly gaps: Gap[] = [];
  /** Subscribed: from here on every comment is told. */
  readonly ready: Promise<unknown>;
  private fetching: Promise<void> = Promise.resolve();

  constructor(
    readonly userId: string,
    post: string,
    port: number,
  ) {
    this.client = connect({ url: `ws://127.0.0.1:${port}`, token: () => token(userId), WebSocket });
    this.client.on('notification', (data, { seq }) => {
      this.moved(seq);
      this.list.set(data.id, data);
    });
    this.client.on('withdrawn', ({ id }, { seq }) => {
      this.moved(seq);
      this.list.delete(id);
    });
    this.client.on('state', (_, { seq }) => this.moved(seq));
    this.client.on('gap', (gap) => {
      this.gaps.push(gap);
      if (gap.channel === null) this.seqs.length = 0;
      this.fetching = this.fetching.then(() => this.fetch());
    });
    const { ready } = this.client.subscribe(`post:${post}`, ({ offset }) => {
      if (offset !== undefined) {
        if (offset <= (this.comments.at(-1) ?? 0)) this.problems.push(`offset ${offset} after ${this.comments.at(-1)}`);
        this.comments.push(offset);
      }
    });
    this.ready = ready;
  }

  private moved(seq: number | undefined): void {
    if (seq === undefined) return;
    const last = this.seqs.at(-1) ?? 0;
    if (seq <= last) this.problems.push(`seq ${seq} after ${last}`);
    this.seqs.push(seq);
  }

  async fetch(): Promise<void> {
    const items = await running.inbox(this.userId);
    this.list.clear();
    for (const item of items) this.list.set(item.id, item);
  }

  async settled(): Promise<void> {
    await this.fetching;
  }
}

it('resumes over a kill of the socket mid-stream, to the very event', async () => {
  const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
  const post = await addPost(database.pool, ada);
  const screen = new Screen(ada, post, proxy.port);
  onTestFinished(() => screen.client.close());
  await screen.ready;
  for (let i = 0; i < 30; i++) {
    await addComment(database.pool, post, bo, `c${i}`);
    if (i % 10 === 5) proxy.reset();
  }
  await until('all have come', () => screen.seqs.at(-1) === 30);
  expect(screen.gaps).toEqual([]);
  expect(screen.problems).toEqual([]);
  expect(screen.seqs).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  await until('and all comments', () => screen.comments.length === 30);
}, 180_000);

it('leaves many channels at once below the limit of the server', async () => {
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  const client = connect({ url: running.url, token: () => token(ada), WebSocket });
  onTestFinished(() => client.close());
  const frames: Frame[] = [];
  client.on('frame', (frame) => frames.push(frame));
  const subscriptions = Array.from({ length: 40 }, (_, i) => client.subscribe(`post:${i}`, () => undefined));
  await Promise.all(subscriptions.map(({ ready }) => ready));
  frames.length = 0;
  for (const subscription of subscriptions) subscription.close();
  await until('40 answers', () => frames.filter(({ id }) => id !== undefined).length === 40);
  expect(frames.filter(({ error }) => error !== undefined)).toEqual([]);
  expect(client.status.status).toBe('online');
});

it('tells of one gap when it was away for more than 500 changes', async () => {
  const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
  const post = await addPost(database.pool, ada);
  const screen = new Screen(ada, post, proxy.port);
  onTestFinished(() => screen.client.close());
  await screen.ready;
  await addComment(database.pool, post, bo);
  await until('the first', () => screen.seqs.at(-1) === 1 && screen.comments.at(-1) === 1);
  proxy.pause();
  await database.pool.query(
    `insert into public.comments (post_id, user_id, content) select $1, $2, 'c' || n from generate_series(1, 600) n`,
    [post, bo],
  );
  await until('600 more', async () => (await running.page(ada)).seq === 601);
  proxy.reset();
  proxy.resume();
  await until('the gaps', () => screen.gaps.length === 2);
  await screen.settled();
  expect(screen.gaps.map(({ channel, reason, from }) => ({ channel, reason, from }))).toEqual([
    { channel: null, reason: 'not_recovered', from: 1 },
    { channel: `post:${post}`, reason: 'not_recovered', from: 1 },
  ]);
  expect(screen.list.size).toBe(601);
  await addComment(database.pool, post, bo, 'and on');
  await until('it goes on', () => screen.list.size === 602 && screen.comments.at(-1) === 602);
  expect(screen.problems).toEqual([]);
}, 180_000);

it('refreshes its token on the open socket, and fetches a new one when a session ended', async () => {
  const [ada = ''] = await addUsers(database.pool, 'Ada');
  let given = 0;
  // As early as may be: after three quarters of the token's life.
  vi.spyOn(Math, 'random').mockReturnValue(0);
  onTestFinished(() => void vi.restoreAllMocks());
  const statuses: string[] = [];
  const client = connect({
    url: `ws://127.0.0.1:${String(running.app.port)}`,
    token: () => token(ada, given++ === 0 ? 12 : 3600),
    WebSocket,
  });
  onTestFinished(() => client.close());
  client.on('status', ({ status }) => statuses.push(status));
  await until('a second token', () => given === 2);
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  await client.ping();
  expect(statuses).toEqual(['connecting', 'online']);

  let expired = 0;
  const other = connect({
    url: `ws://127.0.0.1:${String(running.app.port)}`,
    token: ({ fresh }) => {
      expired++;
      return fresh ? token(ada) : jwt.sign({ sub: ada, exp: Math.floor(Date.now() / 1000) - 60 }, testSecret);
    },
    WebSocket,
  });
  onTestFinished(() => other.close());
  await until('online with the second', () => other.status.status === 'online');
  expect(expired).toBe(2);
}, 120_000);

// Last: everybody who comes later hears of what it announces.
it('has a list with announcements as the inbox has them, whatever is marked', async () => {
  const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
  const post = await addPost(database.pool, ada);
  const announce = (message: string) => database.pool.query('select belfry.announce($1)', [message]);
  await announce('one');
  await announce('two');
  await running.caughtUp();
  const client = connect({ url: running.url, token: () => token(ada), WebSocket });
  onTestFinished(() => client.close());
  await until('it is online', () => client.status.status === 'online');
  const list = notificationList(client, () => (before) => running.page(ada, before));
  onTestFinished(list.watch(() => undefined));
  const shown = (): string[] => list.snapshot().items.map(({ message, data }) => `${message} ${data.state}`);
  const asInbox = async (count: number): Promise<string[]> => {
    await until(`${count} are shown`, () => !list.snapshot().loading && shown().length === count);
    const { announcements, items } = await running.page(ada);
    const inbox = [...announcements, ...items].map(({ message, data }) => `${message} ${data.state}`);
    expect(shown()).toEqual(inbox);
    return inbox;
  };
  await asInbox(2);
  await announce('three');
  await addComment(database.pool, post, bo);
  expect((await asInbox(4)).slice(0, 3)).toEqual(['three unseen', 'two unseen', 'one unseen']);
  await list.mark('read', { through: client.position?.seq ?? 0 });
  expect((await asInbox(4))[3]).toMatch(/ read$/);
  await list.reload();
  await asInbox(4);
  const { id = '' } = list.snapshot().items[1] ?? {};
  await list.mark('seen', [id]);
  expect((await asInbox(2))[0]).toBe('three unseen');
  await list.mark('archive', { through: (client.position?.seq ?? 0) + 1 });
  expect(await asInbox(1)).toEqual(['three unseen']);
}, 120_000);
