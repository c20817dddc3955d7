/** The whole app on a database of its own behind a proxy that can misbehave, for tests of the client against it. */

import jwt from 'jsonwebtoken';
import { startApp, type App } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import type { NotificationData } from '../../src/client/index.js';
import { parseConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { ensurePartitions } from '../../src/outbox/partitions.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { socialConfig, socialSql, testSecret } from '../support/social.js';

export interface Running {
  readonly database: TestDatabase;
  readonly app: App;
  readonly proxy: Proxy;
  /** Through the proxy. */
  readonly url: string;
  page(userId: string, before?: string | null): Promise<Page>;
  /** All pages. */
  inbox(userId: string): Promise<NotificationData[]>;
  /** Waits until the relay has read everything. */
  caughtUp(): Promise<void>;
  stop(): Promise<void>;
}

export interface Page {
  readonly items: NotificationData[];
  readonly announcements: NotificationData[];
  readonly unseen: number;
  readonly unread: number;
  readonly seq: number;
  readonly next: string | null;
}

export const token = (userId: string, seconds = 3600): string =>
  jwt.sign({ sub: userId }, testSecret, { expiresIn: seconds });

/** Limits that many clients of one address do not meet. */
export const wideLimits = {
  connectionsPerUser: 10,
  connectionsPerAddress: 10_000,
  handshakesPerSecond: 10_000,
  httpPerMinute: 600_000,
  messagesPerSecond: 20,
};

export async function startRunning(
  overrides: Readonly<Record<string, unknown>> = {},
  server: Readonly<Record<string, unknown>> = {},
): Promise<Running> {
  const database = await createTestDatabase({ prepare: socialSql });
  const text = socialConfig(database.url, {
    server: { host: '127.0.0.1', port: 0, ...server },
    limits: wideLimits,
    aggregation: { like: { window: '1s', early: [10], groupFor: '12h', sample: 8 } },
    ...overrides,
  });
  const config = parseConfig(text, {}, { path: 'test.yaml' });
  // As `belfry migrate` does: a day's partition that is attached under a writer costs that write its capture.
  const client = await database.client();
  await ensurePartitions(client, { today: true });
  await installCapture(client, config);
  const app = await startApp(config, { role: 'all', log: createLogger({ level: 'fatal', name: 'test' }) });
  const proxy = await startProxy({ host: '127.0.0.1', port: app.port ?? 0 });
  const direct = `http://127.0.0.1:${String(app.port)}`;
  const running: Running = {
    ...{ database, app, proxy },
    url: `ws://127.0.0.1:${proxy.port}`,
    async page(userId, before = null) {
      const query = before === null ? '' : `&before=${encodeURIComponent(before)}`;
      const answer = await fetch(`${direct}/api/notifications?limit=100${query}`, {
        headers: { authorization: `Bearer ${token(userId)}` },
      });
      if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
      return (await answer.json()) as Page;
    },
    async inbox(userId) {
      const items: NotificationData[] = [];
      let next: string | null = null;
      do {
        const one: Page = await running.page(userId, next);
        items.push(...one.items);
        next = one.next;
      } while (next !== null);
      return items;
    },
    caughtUp: () =>
      until('the relay is done', async () => {
        const { rows } = await database.pool.query<{ events: string }>('select events from belfry.lag');
        return rows[0]?.events === '0';
      }),
    async stop() {
      await proxy.close();
      await app.stop();
      await database.drop();
    },
  };
  return running;
}

export async function until(
  what: string,
  check: () => boolean | Promise<boolean>,
  /** Longer than the longest backoff. */
  patienceMs = 60_000,
): Promise<void> {
  for (const end = Date.now() + patienceMs; ; await pause(25)) {
    if (await check()) return;
    if (Date.now() > end) throw new Error(`did not happen in ${patienceMs / 1000} s: ${what}`);
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
