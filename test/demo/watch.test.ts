/** What the page is told: each event's way put together with its write, within bounds that a busy relay cannot exceed. */
import { createServer, request, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nowMs } from '../../src/clock.js';
import type { Write } from '../../src/embedded/backend.js';
import { Watch, type Way } from '../../src/embedded/watch.js';
import type { EventTrace } from '../../src/relay/observer.js';

const cast = ['Ada', 'Bo', 'Cleo'].map((name, at) => ({ id: String(at + 1), name }));
const crowd = [{ id: '9', name: 'Mira Berg' }];
let watch: Watch;
let server: Server;
let pages: Page[] = [];

beforeEach(async () => {
  watch = new Watch(cast, crowd, () => ({ more: true }));
  server = createServer((incoming, response) => watch.serve(incoming, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});

afterEach(async () => {
  watch.stop();
  for (const page of pages) page.stream.destroy();
  pages = [];
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

interface Page {
  readonly stream: IncomingMessage;
  /** Resolves with the next message of this kind. */
  next(event: string): Promise<unknown>;
}

/** A page that looks, once it has had its first state. */
async function look(): Promise<Page> {
  const { port } = server.address() as AddressInfo;
  const stream = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ host: '127.0.0.1', port }, resolve).on('error', reject).end();
  });
  const seen: { event: string; data: unknown }[] = [];
  let wake = (): void => undefined;
  let text = '';
  stream.on('error', () => undefined);
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
    for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
      const match = /^event: (\w+)\ndata: (.*)$/m.exec(text.slice(0, end));
      text = text.slice(end + 2);
      if (match?.[2] !== undefined) seen.push({ event: match[1] ?? '', data: JSON.parse(match[2]) });
    }
    wake();
  });
  const next = async (event: string): Promise<unknown> => {
    for (;;) {
      const at = seen.findIndex((message) => message.event === event);
      if (at !== -1) return seen.splice(at, 1)[0]?.data;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  };
  const page = { stream, next };
  pages.push(page);
  await next('state');
  return page;
}

function trace(id: string, change: Partial<EventTrace> = {}): EventTrace {
  const at = nowMs();
  const times = { writtenAtMs: at, readAtMs: at + 1, storedAtMs: at + 2, pushedAtMs: at + 3 };
  return { id, source: 'post_like', op: 'created', actorId: '1', recipients: ['2'], ...times, ...change };
}

function write(requestId: string, change: Partial<Write> = {}): Write {
  return {
    requestId,
    table: 'likes',
    op: 'insert',
    actorId: '1',
    receivedAtMs: nowMs(),
    committedAtMs: nowMs(),
    ...change,
  };
}

test('an event finds its write by table, kind and actor, oldest first, each write once', async () => {
  const page = await look();
  watch.wrote(write('other actor', { actorId: '3' }));
  watch.wrote(write('other table', { table: 'comments' }));
  watch.wrote(write('undo', { op: 'delete' }));
  watch.wrote(write('first'));
  watch.wrote(write('second'));
  watch.batch({ events: 4, traces: [trace('1'), trace('2'), trace('3'), trace('4', { op: 'removed' })] });
  const ways: Way[] = [];
  for (let count = 0; count < 4; count += 1) ways.push((await page.next('way')) as Way);
  expect(ways.map(({ id, requestId }) => [id, requestId])).toEqual([
    ['1', 'first'],
    ['2', 'second'],
    ['3', null],
    ['4', 'undo'],
  ]);
  expect(ways[0]).toMatchObject({ actor: { name: 'Ada' }, recipients: ['2'] });
});

test('a write that is told shortly after its event is found too', async () => {
  const page = await look();
  watch.batch({ events: 1, traces: [trace('1')] });
  watch.wrote(write('late'));
  expect(await page.next('way')).toMatchObject({ requestId: 'late' });
});

describe('writes that no event came for', () => {
  const page = async (): Promise<unknown> => {
    const looking = await look();
    watch.wrote(write('new'));
    watch.batch({ events: 1, traces: [trace('1')] });
    return await looking.next('way');
  };

  test('are not taken for the one of a later event', async () => {
    await look();
    const longAgo = nowMs() - 61_000;
    for (let count = 0; count < 100; count += 1) watch.wrote(write('old', { committedAtMs: longAgo }));
    expect(await page()).toMatchObject({ requestId: 'new' });
  });

  test('while nobody looked are not kept', async () => {
    for (let count = 0; count < 100; count += 1) watch.wrote(write('unseen'));
    expect(await page()).toMatchObject({ requestId: 'new' });
  });

  test('are kept up to a bound, the newest', async () => {
    const looking = await look();
    for (let count = 1; count <= 1001; count += 1) watch.wrote(write(String(count)));
    watch.batch({ events: 1, traces: [trace('1')] });
    expect(await looking.next('way')).toMatchObject({ requestId: '2' });
  });
});

test('the database’s clock is set to ours', async () => {
  const page = await look();
  await watch.compareClocks(async () => nowMs() + 5000);
  const at = nowMs();
  watch.batch({ events: 1, traces: [trace('1', { writtenAtMs: at + 5000 })] });
  const way = (await page.next('way')) as Way;
  expect(Math.abs(way.writtenAtMs - at)).toBeLessThan(5);
});

test('the doorbell’s changes are counted all and told in bounds; events of the crowd are shown a few a second', async () => {
  const page = await look();
  for (let count = 0; count < 1000; count += 1) {
    watch.doorbell('awake', count % 4 === 0 ? 'poll' : 'bell');
    watch.batch({
      events: 2,
      traces: [trace(`n${count}`, { actorId: '9' }), trace(`x${count}`, { actorId: '9', recipients: ['9'] })],
    });
    watch.doorbell('asleep', 'empty');
  }
  // One state for all of them: nothing is told more often than each 100 ms.
  expect(await page.next('state')).toEqual({
    doorbell: { state: 'asleep', rings: 750, polls: 250, events: 2000 },
    more: true,
  });
  watch.batch({ events: 1, traces: [trace('by Ada')] });
  const ids: string[] = [];
  while (ids.at(-1) !== 'by Ada') ids.push(((await page.next('way')) as Way).id);
  expect(ids.length).toBeGreaterThan(1);
  expect(ids.length).toBeLessThan(10);
  expect(ids.every((id) => !id.startsWith('x'))).toBe(true);
});

test('a page that does not read is cut off, the others are not', async () => {
  const slow = await look();
  slow.stream.pause();
  const quick = await look();
  const cut = new Promise((resolve) => slow.stream.once('close', resolve));
  // More than the system's buffers and ours hold together.
  const recipients = ['2', 'x'.repeat(100_000)];
  for (let count = 0; count < 200; count += 1) {
    watch.batch({ events: 1, traces: [trace(String(count), { recipients })] });
    await quick.next('way');
  }
  slow.stream.resume();
  await cut;
  watch.batch({ events: 1, traces: [trace('after')] });
  expect(await quick.next('way')).toMatchObject({ id: 'after' });
});

test('too many pages are refused', async () => {
  for (let count = 0; count < 20; count += 1) await look();
  const { port } = server.address() as AddressInfo;
  expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(503);
});
