/** The broker of a single process. */

import { expect, it } from 'vitest';
import type { Publication } from '../../src/broker/broker.js';
import { MemoryBroker } from '../../src/broker/memory.js';

it('hands over before publish returns, in order, and asks the gateway who is there', async () => {
  const broker = new MemoryBroker();
  await broker.start();
  expect(broker.mayHaveSessions('1')).toBe(false);
  broker.publish([{ to: 'badge', userId: '1' }]);
  const received: Publication[] = [];
  broker.subscribe({
    receive: (publications) => received.push(...publications),
    reconnected: () => undefined,
    hasSessions: (userId) => userId === '1',
    hasSubscribers: (channel) => channel === 'post:1',
  });
  const page: Publication[] = [
    { to: 'badge', userId: '1' },
    { to: 'everyone', frame: '{}' },
  ];
  broker.publish(page);
  broker.publish([]);
  expect(received).toEqual(page);
  expect([broker.mayHaveSessions('1'), broker.mayHaveSessions('2')]).toEqual([true, false]);
  expect([broker.mayHaveSubscribers('post:1'), broker.mayHaveSubscribers('post:2')]).toEqual([true, false]);
  await broker.stop();
  await broker.stop();
  broker.publish(page);
  expect(received).toHaveLength(2);
});
