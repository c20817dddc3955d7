/** The queue of those who change inboxes between two batches. Nothing of it needs a database. */
import { describe, expect, test } from 'vitest';
import { BelfryError } from '../../src/errors.js';
import { Turns } from '../../src/relay/turns.js';

const ofAnEvent = Object.assign(new Error('a value does not fit'), { code: '22P02' });
const ofTheConnection = Object.assign(new Error('the server went away'), { code: '57P01' });
const leaseLost: unknown = expect.objectContaining({ code: 'lease_lost', retry: true });

function turns(): { queue: Turns; asked: () => number } {
  let asked = 0;
  const queue = new Turns(() => (asked += 1));
  return { queue, asked: () => asked };
}

describe('turns', () => {
  test('come one at a time, in the order in which they were asked for, and whoever asks wakes the leader', async () => {
    const { queue, asked } = turns();
    const done: number[] = [];
    const waiting = [1, 2].map((n) => queue.wait(() => Promise.resolve(done.push(n))));
    expect(asked()).toBe(2);
    expect(done).toEqual([]);
    expect(await queue.take()).toBe(true);
    expect(done).toEqual([1]);
    expect(await queue.take()).toBe(true);
    expect(await Promise.all(waiting)).toEqual([1, 2]);
    expect(await queue.take()).toBe(false);
  });

  test('that fail for an event are the asker’s alone', async () => {
    const { queue } = turns();
    const failed = expect(queue.wait(() => Promise.reject(ofAnEvent))).rejects.toBe(ofAnEvent);
    expect(await queue.take()).toBe(true);
    await failed;
  });

  test('that fail for any other reason end the term too', async () => {
    const { queue } = turns();
    const failed = expect(queue.wait(() => Promise.reject(ofTheConnection))).rejects.toBe(ofTheConnection);
    await expect(queue.take()).rejects.toBe(ofTheConnection);
    await failed;
  });

  test('are refused when the term ends first, and after that', async () => {
    const { queue } = turns();
    const never = (): Promise<never> => Promise.reject(new BelfryError('internal', 'it was not its turn'));
    const waiting = expect(queue.wait(never)).rejects.toEqual(leaseLost);
    queue.end();
    await waiting;
    await expect(queue.wait(never)).rejects.toEqual(leaseLost);
    expect(await queue.take()).toBe(false);
  });
});
