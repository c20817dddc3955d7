/**
 * The client where most people meet it: in a real Chromium, in two tabs, a worker, a page of React; offline and online
 * again, frozen, reloaded. Each view must end as the inbox, everything handed out once and in order.
 */

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { rolldown } from 'rolldown';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { launchBrowser } from '../support/browser.js';
import { addComment, addPost, addUsers, like, unlike } from '../support/social.js';
import type { Client } from '../../src/client/index.js';
import type { View } from './pages/view.js';
import { startRunning, token, until, type Running } from './running.js';

let running: Running;
let files: Server;
let origin: string;
let browser: Browser;
let context: BrowserContext;
/** Uncaught errors of pages. */
const complaints: string[] = [];

beforeAll(async () => {
  const scripts = new Map([
    ['/client.js', await bundle('../../src/client/index.ts')],
    ['/view.js', await bundle('pages/view.ts')],
    ['/react.js', await bundle('pages/react.ts')],
    ['/worker.js', workerScript],
  ]);
  files = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const script = scripts.get(pathname);
    if (script !== undefined) return response.setHeader('content-type', 'text/javascript').end(script);
    const run = scripts.has(`${pathname}.js`) ? `<script src="${pathname}.js" type="module"></script>` : '';
    return response.setHeader('content-type', 'text/html').end(`<!doctype html><body>${run}</body>`);
  });
  await new Promise<void>((resolve) => files.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(files.address() as AddressInfo).port}`;
  running = await startRunning({}, { origins: [origin] });
  browser = await launchBrowser();
}, 300_000);

afterAll(async () => {
  await browser?.close();
  files.close();
  await running?.stop();
});

beforeEach(async () => {
  complaints.length = 0;
  context = await browser.newContext();
  context.on('weberror', (error) => complaints.push(String(error.error().stack)));
});
afterEach(async () => {
  await context.close();
  expect(complaints).toEqual([]);
});

async function bundle(file: string): Promise<string> {
  const made = await rolldown({
    input: fileURLToPath(new URL(file, import.meta.url)),
    platform: 'browser',
    resolve: { extensionAlias: { '.js': ['.ts', '.js'] } },
    transform: { define: { 'process.env.NODE_ENV': '"development"' } },
  });
  const { output } = await made.generate({ format: 'esm' });
  await made.close();
  return output[0].code;
}

/** Hands on what a client in a worker hears. */
const workerScript = `
  import { connect } from '/client.js';
  onmessage = ({ data: { url, token } }) => {
    const client = connect({ url, token: () => token });
    client.on('status', ({ status }) => postMessage(status));
    client.on('notification', ({ message }, { seq }) => postMessage(seq + ' ' + message));
  };`;

/** A tab with a client that tells what it was told. */
async function tab(userId: string, where?: Page): Promise<Page> {
  const page = where ?? (await context.newPage());
  await page.goto(`${origin}/view`);
  await page.evaluate(
    ({ url, token }) => (globalThis as unknown as { begin: (url: string, token: string) => void }).begin(url, token),
    { url: running.url, token: token(userId) },
  );
  await online(page);
  return page;
}

const viewOf = (page: Page): Promise<View> => page.evaluate(() => (globalThis as unknown as { view: View }).view);
const online = (page: Page) => until('online', async () => (await viewOf(page)).status === 'online');
const messages = async (page: Page): Promise<string[]> => Object.values((await viewOf(page)).list).sort();

/** Stops the processes that run pages, as a phone stops a tab in the background; returns what lets them go on. */
async function freeze(): Promise<() => void> {
  const devtools = await browser.newBrowserCDPSession();
  const { processInfo } = await devtools.send('SystemInfo.getProcessInfo');
  await devtools.detach();
  const pids = processInfo.flatMap(({ type, id }) => (type === 'renderer' ? [id] : []));
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  return () => pids.forEach((pid) => process.kill(pid, 'SIGCONT'));
}

async function people(): Promise<{ ada: string; bo: string; post: string }> {
  const [ada = '', bo = ''] = await addUsers(running.database.pool, 'Ada', 'Bo');
  return { ada, bo, post: await addPost(running.database.pool, ada) };
}

const comment = (post: string, userId: string) => addComment(running.database.pool, post, userId);
const comments = async (page: Page): Promise<number> => Object.keys((await viewOf(page)).list).length;
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

describe('in a tab', { timeout: 180_000 }, () => {
  it('and another of the same person: both are told, and what one marks the other sees', async () => {
    const { ada, bo, post } = await people();
    const [one, other] = [await tab(ada), await tab(ada)];
    await comment(post, bo);
    await like(running.database.pool, bo, post);
    const both = ['Bo commented on your post', 'Bo liked your post'];
    for (const page of [one, other]) await until('both', async () => (await comments(page)) === 2);
    expect(await messages(one)).toEqual(both);
    expect(await messages(other)).toEqual(both);

    await one.evaluate(() => (globalThis as unknown as { client: Client }).client.read({ through: 2 }));
    await until('the mark', async () => (await viewOf(other)).states.length === 1);
    expect((await viewOf(other)).states).toEqual(['read']);
    expect((await viewOf(one)).states).toEqual([]);
    await comment(post, bo);
    for (const page of [one, other]) await until('and on', async () => (await comments(page)) === 3);
    expect((await viewOf(one)).seqs).toEqual([1, 2, 4]);
    expect((await viewOf(other)).seqs).toEqual([1, 2, 3, 4]);
    for (const page of [one, other]) expect((await viewOf(page)).statuses).toEqual(['connecting', 'online']);
  });

  it('offline and online again: it comes back by itself, with what it missed', async () => {
    const { ada, bo, post } = await people();
    const page = await tab(ada);
    await comment(post, bo);
    await until('the first', async () => (await comments(page)) === 1);
    await context.setOffline(true);
    running.proxy.pause();
    await comment(post, bo);
    await comment(post, bo);
    await running.caughtUp();
    running.proxy.reset();
    running.proxy.resume();
    await context.setOffline(false);
    await until('all three', async () => (await comments(page)) === 3);
    expect((await viewOf(page)).seqs).toEqual(upTo(3));
    expect((await viewOf(page)).gaps).toBe(0);
    expect((await viewOf(page)).statuses).toContain('waiting');
  });

  it('that stays open over a network gone silent: `online` is enough for it to notice', async () => {
    const { ada, bo, post } = await people();
    const page = await tab(ada);
    running.proxy.pause();
    await comment(post, bo);
    await page.evaluate(() => void dispatchEvent(new Event('online')));
    // By itself it would ask after 25 s of silence, and wait for as long.
    await until('it has noticed', async () => (await viewOf(page)).status !== 'online', 40_000);
    running.proxy.reset();
    running.proxy.resume();
    await until('the comment', async () => (await comments(page)) === 1);
    expect((await viewOf(page)).seqs).toEqual([1]);
  });

  it.each(['keeps its connection', 'loses its connection'])('frozen, which %s meanwhile', async (what) => {
    const { ada, bo, post } = await people();
    const page = await tab(ada);
    await comment(post, bo);
    await until('the first', async () => (await comments(page)) === 1);
    await page.evaluate(() => {
      let last = performance.now();
      Object.assign(globalThis, { stoodStillMs: 0 });
      setInterval(() => {
        const { stoodStillMs } = globalThis as unknown as { stoodStillMs: number };
        Object.assign(globalThis, { stoodStillMs: Math.max(stoodStillMs, performance.now() - last) });
        last = performance.now();
      }, 20);
    });
    const thaw = await freeze();
    const began = performance.now();
    for (let i = 0; i < 5; i++) await comment(post, bo);
    await running.caughtUp();
    if (what.startsWith('loses')) running.proxy.reset();
    const frozenMs = performance.now() - began;
    thaw();
    await until('all six', async () => (await comments(page)) === 6);
    expect((await viewOf(page)).seqs).toEqual(upTo(6));
    expect((await viewOf(page)).gaps).toBe(0);
    // It was frozen indeed.
    const stoodStillMs = await page.evaluate(() => (globalThis as unknown as { stoodStillMs: number }).stoodStillMs);
    expect(stoodStillMs).toBeGreaterThan(frozenMs - 50);
  });

  it('reloaded: goes on where it was, with what came while there was no page', async () => {
    const { ada, bo, post } = await people();
    const page = await tab(ada);
    await comment(post, bo);
    await like(running.database.pool, bo, post);
    await until('both', async () => (await comments(page)) === 2);
    await page.goto('about:blank');
    await comment(post, bo);
    await unlike(running.database.pool, bo, post);
    await running.caughtUp();
    await tab(ada, page);
    await until('what was missed', async () => (await viewOf(page)).seqs.length === 2);
    expect((await viewOf(page)).seqs).toEqual([3, 4]);
    expect(await messages(page)).toEqual(['Bo commented on your post']);
    await page.reload();
    await tab(ada, page);
    expect((await viewOf(page)).seqs).toEqual([]);
  });
});

it('in a worker', async () => {
  const { ada, bo, post } = await people();
  const page = await context.newPage();
  await page.goto(origin);
  await page.evaluate(
    (start) => {
      const heard: string[] = [];
      const worker = new Worker('/worker.js', { type: 'module' });
      worker.onmessage = ({ data }) => void heard.push(data as string);
      worker.postMessage(start);
      Object.assign(globalThis, { heard });
    },
    { url: running.url, token: token(ada) },
  );
  const heard = () => page.evaluate(() => (globalThis as unknown as { heard: string[] }).heard);
  await until('online', async () => (await heard()).includes('online'));
  await comment(post, bo);
  await until('the comment', async () => (await heard()).length === 3);
  expect(await heard()).toEqual(['connecting', 'online', '1 Bo commented on your post']);
}, 180_000);

it('in a page of React: badge, list and counters, in strict mode', async () => {
  const { pool } = running.database;
  const { ada, bo, post } = await people();
  for (let i = 0; i < 4; i++) await comment(post, bo);
  await like(pool, bo, post);
  await running.caughtUp();
  const page = await context.newPage();
  const server = running.url.replace('ws:', 'http:');
  await page.goto(`${origin}/react?token=${token(ada)}&post=${post}&server=${encodeURIComponent(server)}`);
  const shows = (selector: string, text: string) =>
    until(`${selector} shows ${text}`, async () => (await page.textContent(selector)) === text);
  const lists = async (...lines: string[]) => {
    const items = () => page.locator('li').allTextContents();
    await until('the list', async () => (await items()).length === lines.length);
    await expect.poll(items, { timeout: 20_000 }).toEqual(lines);
  };
  const [liked, commented] = ['Bo liked your post', 'Bo commented on your post'];
  await shows('#status', 'online');
  await shows('#badge', '5/5');
  await shows('#post', '1 likes, 4 comments');
  await lists(`${liked} (unseen)`, `${commented} (unseen)`, `${commented} (unseen)`);
  await shows('#load', 'loaded, more');

  // One more: it comes first, once, though strict mode ran every effect twice.
  await comment(post, bo);
  await lists(`${commented} (unseen)`, `${liked} (unseen)`, `${commented} (unseen)`, `${commented} (unseen)`);
  await shows('#heard', '1');
  await shows('#post', '1 likes, 5 comments');
  await page.click('#more');
  await shows('#load', 'loaded');
  await until('six', async () => (await page.locator('li').count()) === 6);

  // An undone like leaves; marks of this tab and of others show.
  await unlike(pool, bo, post);
  await shows('#post', '0 likes, 5 comments');
  await until('five', async () => (await page.locator('li').count()) === 5);
  await page.click('#read');
  await lists(`${commented} (read)`, ...upTo(4).map(() => `${commented} (unseen)`));
  await page.click('#archive');
  await lists(...upTo(4).map(() => `${commented} (unseen)`));
  const through = (await running.page(ada)).seq;
  const call = (path: string, body: object) =>
    fetch(`${server}/api/notifications/${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token(ada)}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  expect((await call('seen', { through })).status).toBe(200);
  await lists(...upTo(4).map(() => `${commented} (seen)`));
  await shows('#badge', '0/4');

  // Away for more than can be replayed: the gap brings a new list.
  running.proxy.pause();
  await pool.query(
    `insert into public.comments (post_id, user_id, content) select $1, $2, 'c' || n from generate_series(1, 600) n`,
    [post, bo],
  );
  await running.caughtUp();
  running.proxy.reset();
  running.proxy.resume();
  await shows('#badge', '100/100');
  await shows('#load', 'loaded, more');
  await lists(...upTo(3).map(() => `${commented} (unseen)`));
  await shows('#post', '0 likes, 605 comments');

  // What is taken away stops listening, and comes back with the present state.
  await page.click('#toggle');
  await until('gone', async () => (await page.locator('#post').count()) === 0);
  // By somebody else: what was undone a moment ago is redone in its window, so it may be pushed only later.
  const [cleo = ''] = await addUsers(pool, 'Cleo');
  await like(pool, cleo, post);
  await running.caughtUp();
  await page.click('#toggle');
  await shows('#post', '1 likes, 605 comments');
  await lists('Cleo liked your post (unseen)', ...upTo(2).map(() => `${commented} (unseen)`));
  await shows('#heard', '0');
}, 300_000);
