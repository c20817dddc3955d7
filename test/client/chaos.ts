/**
 * Many people's screens on networks that cut, fall silent, slow down, drop, repeat and reorder, while others write; and what
 * must be true at the end of it. Run by chaos.test.ts for seconds and by chaos.long.ts for a minute.
 */

import { setMaxListeners } from 'node:events';
import { expect } from 'vitest';
import { WebSocket } from 'ws';
import { connect, type Client, type Gap, type NotificationData } from '../../src/client/index.js';
import { startMangler, type Mangler } from '../support/mangler.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { addComment, addPost, addUsers, like, unlike } from '../support/social.js';
import { pause, token, until, type Running } from './running.js';

export interface ChaosOptions {
  readonly people: number;
  readonly eventsPerSecond: number;
  readonly seconds: number;
}

export interface ChaosResult {
  readonly written: number;
  readonly tookMs: number;
  readonly reconnects: number;
  readonly gaps: number;
  readonly mangled: Mangler['done'];
}

/** A person's screen: what a page would hold that lives by pushes, and fetches where a gap is announced. */
class Screen {
  readonly client: Client;
  readonly list = new Map<string, NotificationData>();
  /** Of the post's comments, in the order in which they were handed out. */
  readonly offsets: number[] = [];
  readonly problems: string[] = [];
  readonly gaps: Gap[] = [];
  badge = { unseen: -1, unread: -1 };
  likes = -1;
  reconnects = 0;
  readonly ready: Promise<unknown>;
  fetching: Promise<void> = Promise.resolve();
  private lastSeq = 0;
  /** Up to there the post's comments were handed out, or announced as lost. */
  lastOffset = 0;
  private meanwhile: (() => void)[] = [];

  constructor(
    private readonly running: Running,
    readonly userId: string,
    readonly post: string,
    url: string,
  ) {
    this.client = connect({ url, token: () => token(userId), WebSocket });
    this.client.on('notification', (data, { seq }) => {
      this.moved(seq);
      this.change(() => this.list.set(data.id, data));
    });
    this.client.on('withdrawn', ({ id }, { seq }) => {
      this.moved(seq);
      this.change(() => this.list.delete(id));
    });
    this.client.on('state', (_, { seq }) => this.moved(seq));
    this.client.on('badge', (badge) => (this.badge = badge));
    this.client.on('status', ({ status }) => void (status === 'waiting' && this.reconnects++));
    this.client.on('gap', (gap) => this.missed(gap));
    const subscription = this.client.subscribe(
      `post:${post}`,
      ({ offset, data }) => {
        if (offset !== undefined) {
          if (offset !== this.lastOffset + 1) this.problems.push(`offset ${offset} after ${this.lastOffset}`);
          this.lastOffset = offset;
          this.offsets.push(offset);
        }
        if (typeof data['likes_count'] === 'number') this.likes = data['likes_count'];
      },
      (state) => (this.likes = state['likes_count'] ?? -1),
    );
    this.ready = subscription.ready;
  }

  /** Also once more when a list that is being fetched has come: it may be older. */
  private change(apply: () => void): void {
    apply();
    this.meanwhile.push(apply);
  }

  private moved(seq: number | undefined): void {
    if (seq === undefined) return;
    if (seq <= this.lastSeq) this.problems.push(`seq ${seq} after ${this.lastSeq}`);
    this.lastSeq = seq;
  }

  private missed(gap: Gap): void {
    this.gaps.push(gap);
    const last = gap.channel === null ? this.lastSeq : this.lastOffset;
    if ((gap.to ?? 0) <= last) this.problems.push(`a gap from ${gap.from} to ${gap.to}, after ${last}`);
    if (gap.channel !== null) {
      this.lastOffset = gap.to ?? 0;
      return;
    }
    this.lastSeq = gap.to ?? 0;
    this.fetching = this.fetching.then(async () => {
      this.meanwhile = [];
      const items = await this.running.inbox(this.userId);
      this.list.clear();
      for (const item of items) this.list.set(item.id, item);
      for (const apply of this.meanwhile) apply();
    });
  }
}

/** A way to the server with a weather of its own. */
interface Network {
  readonly proxy: Proxy;
  readonly mangler: Mangler | null;
}

const networkCount = 8;
/** So many of its changes cannot be replayed. */
const beyondReplay = 600;

const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T;

/** Runs it and checks the end; throws where anybody's view is not what it must be. */
export async function chaos(running: Running, options: ChaosOptions): Promise<ChaosResult> {
  const { pool } = running.database;
  const people = await addUsers(pool, ...Array.from({ length: options.people }, (_, i) => `Person ${i}`));
  const crowd = await addUsers(pool, ...Array.from({ length: 30 }, (_, i) => `Crowd ${i}`));
  const posts: string[] = [];
  for (const userId of people) posts.push(await addPost(pool, userId));
  const networks = await Promise.all(
    Array.from({ length: networkCount }, (_, i) => startNetwork(running, i % 2 === 1)),
  );
  const wake = pageEvents();
  const screens = people.map((userId, i) => {
    const { proxy } = networks[i % networkCount] as Network;
    return new Screen(running, userId, posts[i] ?? '', `ws://127.0.0.1:${proxy.port}`);
  });
  try {
    await Promise.all(screens.map(({ ready }) => ready));
    const began = performance.now();
    const weather = { over: false };
    const storms = networks.map((network) => storm(network, weather));
    const [written, marks] = await write(running, screens, crowd, options);
    const tookMs = performance.now() - began;
    // First, since the end of a squall would end the outage as well.
    weather.over = true;
    await Promise.all(storms);
    const victims = await outage(running, networks[0] as Network, screens, crowd);
    const everybody = () => screens.every(({ client }) => client.status.status === 'online');
    // Nobody waits for the end of a backoff: it says nothing, and takes half a minute.
    const waker = setInterval(wake.online, 1000);
    await until('everybody is back', everybody).finally(() => clearInterval(waker));
    await Promise.all(marks);
    // A loss at the end of a stream shows by what follows: one more event lies behind everything.
    for (const { post } of screens) await addComment(pool, post, pick(crowd), 'the last');
    await running.caughtUp();
    const unchecked = [...screens];
    const checker = async (): Promise<void> => {
      for (let one = unchecked.pop(); one !== undefined; one = unchecked.pop()) await check(running, one);
    };
    await Promise.all(Array.from({ length: 8 }, checker));
    for (const screen of screens) {
      if (victims.has(screen))
        expect(screen.gaps.map(({ channel }) => channel)).toEqual(
          expect.arrayContaining([null, `post:${screen.post}`]),
        );
      else expect(screen.gaps).toEqual([]);
    }
    const mangled = { dropped: 0, repeated: 0, swapped: 0 };
    for (const { mangler } of networks) {
      for (const what of ['dropped', 'repeated', 'swapped'] as const) mangled[what] += mangler?.done[what] ?? 0;
    }
    const sum = (of: (screen: Screen) => number): number => screens.reduce((all, screen) => all + of(screen), 0);
    return { written, tookMs, reconnects: sum((one) => one.reconnects), gaps: sum((one) => one.gaps.length), mangled };
  } finally {
    for (const { client } of screens) client.close();
    wake.end();
    for (const { proxy, mangler } of networks) {
      await proxy.close();
      await mangler?.close();
    }
  }
}

async function startNetwork(running: Running, mangled: boolean): Promise<Network> {
  const port = running.app.port ?? 0;
  const mangler = mangled ? await startMangler(`ws://127.0.0.1:${port}`) : null;
  mangler?.oneOf(10);
  return { mangler, proxy: await startProxy({ host: '127.0.0.1', port: mangler?.port ?? port }) };
}

/** Trouble of one network after the other kind, until it is over; fair weather at the end. */
async function storm({ proxy, mangler }: Network, weather: { readonly over: boolean }): Promise<void> {
  while (!weather.over) {
    await pause(500 + Math.random() * 1500);
    switch (Math.floor(Math.random() * 5)) {
      case 0:
        proxy.reset();
        break;
      case 1:
        proxy.delay(20 + Math.random() * 150);
        await pause(700);
        proxy.delay(0);
        break;
      case 2:
        proxy.slow(40);
        await pause(700);
        proxy.slow(0);
        break;
      default:
        proxy.pause();
        await pause(300 + Math.random() * 500);
        if (Math.random() < 0.5) proxy.reset();
        proxy.resume();
    }
  }
  mangler?.oneOf(0);
}

/** Comments, likes and their undoing at the wanted rate, and marks of the people themselves; resolves when all is committed. */
async function write(
  { database: { pool } }: Running,
  screens: readonly Screen[],
  crowd: readonly string[],
  { eventsPerSecond, seconds }: ChaosOptions,
): Promise<[written: number, marks: Promise<unknown>[]]> {
  const writers = 10;
  const marks: Promise<unknown>[] = [];
  const began = performance.now();
  const total = eventsPerSecond * seconds;
  let next = 0;
  const writer = async (): Promise<void> => {
    for (let n = next++; n < total; n = next++) {
      const early = began + (n * 1000) / eventsPerSecond - performance.now();
      if (early > 1) await pause(early);
      const [{ post }, actor, what] = [pick(screens), pick(crowd), Math.random()];
      if (what < 0.6) await addComment(pool, post, actor, `comment ${n}`);
      // Twice the same like is refused.
      else if (what < 0.8) await like(pool, actor, post).catch(() => undefined);
      else await unlike(pool, actor, post);
      if (n % 20 === 0) {
        const { client } = pick(screens);
        marks.push(client.seen({ through: client.position?.seq ?? 0 }).catch(() => undefined));
      }
    }
  };
  await Promise.all(Array.from({ length: writers }, writer));
  return [total, marks];
}

/** Two people of this network miss more than can be replayed. */
async function outage(
  running: Running,
  { proxy }: Network,
  screens: readonly Screen[],
  crowd: readonly string[],
): Promise<Set<Screen>> {
  const victims = screens.filter((_, i) => i % networkCount === 0).slice(0, 2);
  proxy.pause();
  for (const { post } of victims) {
    await running.database.pool.query(
      `insert into public.comments (post_id, user_id, content)
       select $1, $2, 'missed ' || n from generate_series(1, $3::int) n`,
      [post, pick(crowd), beyondReplay],
    );
  }
  await running.caughtUp();
  proxy.reset();
  proxy.resume();
  return new Set(victims);
}

async function check(running: Running, screen: Screen): Promise<void> {
  const { userId, post } = screen;
  await until(`person ${userId} has the whole stream`, async () => {
    await screen.fetching;
    return (screen.client.position?.seq ?? -1) >= (await running.page(userId)).seq;
  });
  await screen.fetching;
  const byId = (a: NotificationData, b: NotificationData): number => Number(a.id) - Number(b.id);
  const seen = ({ id, message, data }: NotificationData) => ({ id, message, actors: data.actor_count });
  const items = await running.inbox(userId);
  expect([...screen.list.values()].sort(byId).map(seen)).toEqual(items.sort(byId).map(seen));
  const { unseen, unread } = await running.page(userId);
  await until(`badge of ${userId}`, () => screen.badge.unseen === unseen && screen.badge.unread === unread);
  const { rows } = await running.database.pool.query<{ likes: number; comments: number }>(
    `select (select count(*)::int from public.likes where post_id = $1) as likes,
            (select count(*)::int from public.comments where post_id = $1) as comments`,
    [post],
  );
  const { likes = -1, comments = -1 } = rows[0] ?? {};
  await until(`likes of ${post}`, () => screen.likes === likes);
  // Whoever comes back late may find even the last one behind a gap.
  await until(`comments of ${post}`, () => screen.lastOffset === comments);
  // Every comment is one event, and whatever is not among those handed out was announced.
  const announced = screen.gaps.flatMap(({ channel, from, to }) => (channel === null ? [] : [(to ?? 0) - (from ?? 0)]));
  expect(screen.offsets.length + announced.reduce((sum, missed) => sum + missed, 0)).toBe(comments);
  expect(screen.problems).toEqual([]);
}

/** What a browser gives a page: the client hears `online`. */
function pageEvents(): { online(): void; end(): void } {
  const page = new EventTarget();
  setMaxListeners(0, page);
  const methods = ['addEventListener', 'removeEventListener'] as const;
  for (const name of methods)
    Object.defineProperty(globalThis, name, { value: page[name].bind(page), configurable: true });
  return {
    online: () => void page.dispatchEvent(new Event('online')),
    end: () => methods.forEach((name) => Reflect.deleteProperty(globalThis, name)),
  };
}
