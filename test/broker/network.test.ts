/** Redis and NATS as brokers between two processes' worth of Belfry. Needs the servers; what is not there is named as skipped. */

import { pino } from 'pino';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Broker, Publication } from '../../src/broker/broker.js';
import { createBroker } from '../../src/broker/create.js';
import type { Logger } from '../../src/log.js';
import { brokers, ofKind } from '../support/brokers.js';
import { startProxy } from '../support/proxy.js';

const log = pino({ level: 'silent' });

class Ear {
  readonly heard: Publication[] = [];
  reconnects = 0;
  receive(publications: readonly Publication[]): void {
    this.heard.push(...publications);
  }
  reconnected(): void {
    this.reconnects += 1;
  }
  hasSessions(): boolean {
    return true;
  }
  hasSubscribers(): boolean {
    return true;
  }
}

async function started(
  kind: 'redis' | 'nats',
  port: number,
  logger: Logger = log,
): Promise<{ broker: Broker; ear: Ear }> {
  const broker = await createBroker({ kind, url: `${kind}://127.0.0.1:${String(port)}` }, logger);
  const ear = new Ear();
  broker.subscribe(ear);
  await broker.start();
  onTestFinished(() => broker.stop());
  return { broker, ear };
}

/** Whether somebody said: compare with the database. */
const told = (ear: Ear): boolean =>
  ear.heard.some((publication) => publication.to === 'control' && publication.kind === 'leader');

describe.each(brokers)('$kind', ({ kind, port, there, skipped }) => {
  const runs = it.skipIf(!there);
  const title = (text: string) => text + skipped;

  runs(title('carries publications to other processes in order, and to its own at once, once'), async () => {
    const [one, two] = await Promise.all([started(kind, port), started(kind, port)]);
    const marker = `${kind} ${String(process.pid)}`;
    // Larger than one message may be.
    const sent = Array.from({ length: 100 }, (_, i): Publication => ({
      to: 'user',
      userId: marker,
      seq: i + 1,
      frame: 'x'.repeat(10_000),
    }));
    one.broker.publish(sent);
    expect(one.ear.heard).toEqual(sent);
    const mine = () =>
      two.ear.heard.filter((publication) => publication.to === 'user' && publication.userId === marker);
    await expect.poll(() => mine().length).toBe(100);
    expect(mine()).toEqual(sent);
    expect(one.ear.heard).toEqual(sent);
  });

  runs(
    title('says when it was cut off and is back, to the others too: they have missed what it had to say'),
    async () => {
      const proxy = await startProxy({ host: '127.0.0.1', port });
      onTestFinished(() => proxy.close());
      const { broker, ear } = await started(kind, proxy.port);
      const other = await started(kind, port);
      proxy.reset();
      await expect.poll(() => ear.reconnects, { timeout: 15_000 }).toBeGreaterThan(0);
      const marker: Publication = { to: 'badge', userId: `after ${kind} ${String(process.pid)}` };
      await expect
        .poll(
          () => {
            broker.publish([marker]);
            return other.ear.heard.some(
              (publication) => publication.to === 'badge' && publication.userId === marker.userId,
            );
          },
          { timeout: 15_000 },
        )
        .toBe(true);
      await expect.poll(() => told(other.ear), { timeout: 15_000 }).toBe(true);
    },
  );

  it('cannot be reached: one clear error', async () => {
    const broker = await createBroker({ kind, url: `${kind}://127.0.0.1:1` }, log);
    await expect(broker.start()).rejects.toMatchObject({ code: 'broker_unavailable' });
  });
});

// NATS notices both by itself: its client pings with a deadline, and what it can't write it keeps.
describe('redis', () => {
  const { port, there } = ofKind('redis');
  const runs = it.skipIf(!there);
  const title = (text: string) => (there ? text : `${text} (skipped: no redis on 127.0.0.1:${String(port)})`);
  const marker: Publication = { to: 'badge', userId: `redis ${String(process.pid)}` };

  runs(
    title('gives up links that have fallen silent, also the one that is written to all the time'),
    { timeout: 90_000 },
    async () => {
      const proxy = await startProxy({ host: '127.0.0.1', port });
      onTestFinished(() => proxy.close());
      const warnings: string[] = [];
      const logger = pino({ level: 'warn' }, { write: (line: string) => void warnings.push(line) });
      const [one, other] = [await started('redis', proxy.port, logger), await started('redis', port)];
      proxy.pause();
      const givenUp = () => {
        one.broker.publish([marker]);
        return ['publisher', 'subscriber'].filter((link) => warnings.some((line) => line.includes(link)));
      };
      await expect.poll(givenUp, { timeout: 60_000, interval: 200 }).toEqual(['publisher', 'subscriber']);
      proxy.resume();
      await expect.poll(() => [one.ear.reconnects > 0, told(other.ear)], { timeout: 25_000 }).toEqual([true, true]);
    },
  );

  runs(title('queues no more than so much, and tells the others that something was lost'), async () => {
    const [one, other] = [await started('redis', port), await started('redis', port)];
    for (let i = 0; i < 20_000; i++) one.broker.publish([marker]);
    await expect.poll(() => told(other.ear), { timeout: 15_000 }).toBe(true);
    expect(other.ear.heard.filter(({ to }) => to === 'badge').length).toBeLessThan(20_000);
  });
});

describe('nats', () => {
  const { port, there } = ofKind('nats');
  const runs = it.skipIf(!there);
  const title = (text: string) => (there ? text : `${text} (skipped: no nats on 127.0.0.1:${String(port)})`);

  runs(
    title('loses only what is larger than the server takes, and tells the others that something was lost'),
    async () => {
      const [one, other] = [await started('nats', port), await started('nats', port)];
      const marker = `large ${String(process.pid)}`;
      const sent = ['x', 'x'.repeat(2 * 1024 * 1024), 'x'].map((frame, i): Publication => ({
        ...{ to: 'user', userId: marker },
        seq: i + 1,
        frame,
      }));
      one.broker.publish(sent);
      expect(one.ear.heard).toEqual(sent);
      const heard = () =>
        other.ear.heard.flatMap((publication) =>
          publication.to === 'user' && publication.userId === marker ? [publication.seq] : [],
        );
      await expect.poll(() => [heard(), told(other.ear)]).toEqual([[1, 3], true]);
    },
  );
});
