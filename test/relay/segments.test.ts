/** A page with a bad event in it: the poison stands alone in the end, everything else goes on in order. */

import { expect, it } from 'vitest';
import { BelfryError } from '../../src/errors.js';
import type { Cursor } from '../../src/outbox/cursor.js';
import type { PageEvent } from '../../src/relay/plan/resolved.js';
import { processPage } from '../../src/relay/segments.js';

const cursorAt = (id: string): Cursor => ({ seen: '1:1:', target: '9:9:', afterId: id, maxId: id });
const end = cursorAt('end');

function event(id: number, op = 'notify'): PageEvent {
  return { kind: 'other', event: { id: String(id), at: new Date(0), source: 'likes', op, row: {} } };
}

/** Fails on any part that holds one of `bad`; keeps what was done, with the cursor it was done at. */
async function run(
  events: readonly PageEvent[],
  bad: readonly string[],
  error: Error = new TypeError('bad'),
): Promise<string[]> {
  const done: string[] = [];
  await processPage(
    {
      process: (part, cursor) => {
        if (part.some((item) => bad.includes(item.event.id))) return Promise.reject(error);
        done.push(`${part.map((item) => item.event.id).join(' ')} @${cursor.afterId}`);
        return Promise.resolve();
      },
      truncate: ({ event: { source } }, cursor) =>
        Promise.resolve(void done.push(`truncate ${source} @${cursor.afterId}`)),
      bury: (item, _, cursor) => Promise.resolve(void done.push(`bury ${item.event.id} @${cursor.afterId}`)),
    },
    events,
    cursorAt,
    end,
  );
  return done;
}

it('a page without a fault is one part', async () => {
  expect(await run([event(1), event(2), event(3)], [])).toEqual(['1 2 3 @end']);
});

it('the poison is buried alone, in its place, and the cursor follows every part', async () => {
  expect(
    await run(
      [1, 2, 3, 4].map((id) => event(id)),
      ['3'],
    ),
  ).toEqual(['1 2 @2', 'bury 3 @3', '4 @end']);
});

it('a truncate is a part of its own', async () => {
  expect(await run([event(1), event(2, 'truncated'), event(3)], [])).toEqual(['1 @1', 'truncate likes @2', '3 @end']);
});

it.each([
  ['a stored batch that could not be published', new BelfryError('unavailable', 'stored')],
  ['a lost lease', new BelfryError('lease_lost', 'lost')],
  ['a lost connection', Object.assign(new Error('gone'), { code: 'ECONNRESET' })],
  ['a deadlock', Object.assign(new Error('deadlock'), { code: '40P01' })],
])('%s is no fault of an event: nothing is halved or buried', async (_, error) => {
  const events = [1, 2, 3, 4].map((id) => event(id));
  await expect(run(events, ['1'], error)).rejects.toBe(error);
});
