/**
 * Belfry as its users run it: the built command line, a config file, a process of its own.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { queryOne } from './database.js';
import { type Child, freePort, run, start, until } from './processes.js';
import { socialConfig } from './social.js';

const CLI = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const START_LIMIT_MS = 30_000;

export const SECRET = 'a secret of the benches, 32 bytes or more';

export interface Installation {
  readonly url: string;
  readonly port: number;
  /** Starts a process and waits until it is ready. `url` replaces the database's, e.g. by a proxy's. */
  start(options?: { readonly url?: string; readonly nodeFlags?: readonly string[] }): Promise<Child>;
  remove(): Promise<void>;
}

/** Migrates the database and installs the capture; `more` are sources besides the likes. */
export async function install(
  url: string,
  wakeup: 'notify' | 'poll',
  more: readonly object[] = [],
): Promise<Installation> {
  const folder = await mkdtemp(join(tmpdir(), 'belfry-bench-config-'));
  const file = join(folder, 'belfry.json');
  const port = await freePort();
  await writeFile(file, socialConfig({ url, port, wakeup, secret: SECRET, more }));
  await run(process.execPath, [CLI, 'migrate', '--config', file]);
  return {
    url,
    port,
    async start(options = {}) {
      const env = options.url === undefined ? {} : { DATABASE_URL: options.url };
      const child = start(process.execPath, [...(options.nodeFlags ?? []), CLI, 'start', '--config', file], {
        LOG_LEVEL: 'warn',
        ...env,
      });
      await until('belfry start: ready', START_LIMIT_MS, 20, async () => {
        child.assertAlive();
        return await fetch(`http://127.0.0.1:${port}/readyz`).then(
          (response) => response.ok,
          () => false,
        );
      });
      return child;
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** How many events the relay has not read yet; exact when nobody writes, since a relay without work has read the last id. */
export async function backlog(url: string): Promise<number> {
  const row = await queryOne(
    url,
    `select coalesce((select max(id) from belfry.outbox), 0) as last, max_id as read from belfry.relay`,
  );
  return Math.max(0, Number(row['last']) - Number(row['read']));
}

/** Waits until the relay has read everything. */
export async function drained(url: string, limitMs: number): Promise<void> {
  await until('relay: everything read', limitMs, 50, async () => (await backlog(url)) === 0);
}
