/**
 * `belfry start`: runs until it is told to stop.
 *
 * SIGTERM or Ctrl-C drains; whatever has not ended after STOP_MS is cut off, so that it is over within the 30 s that
 * orchestrators give. A second signal ends it at once. SIGHUP reads the files of `server.tls` again.
 */

import { Option } from 'commander';
import type { Command } from 'commander';
import { loadConfig } from '../config.js';
import type { Config } from '../config.js';
import { counted } from '../counted.js';
import { BelfryError } from '../errors.js';
import { createLogger } from '../log.js';
import type { Logger } from '../log.js';
import type { App } from '../app.js';
import { seedCounter } from '../inbox/seed.js';
import { planSkip, skipTo } from '../outbox/skip.js';
import { assertMigrated } from '../schema/migrate.js';
import { assertOneDatabase } from '../schema/one-database.js';
import { addCommand, confirm, note, pointInTime, withClient } from './common.js';
import type { CommonOptions } from './common.js';
import { untilStopped } from './signals.js';

type Role = 'all' | 'relay' | 'gateway';

export function registerStart(program: Command): void {
  addCommand(program, 'start', 'run relay and gateway; one line of JSON per log entry on stdout')
    .addOption(
      new Option('--role <role>', 'what to run in this process').choices(['all', 'relay', 'gateway']).default('all'),
    )
    .option('--from <time>', 'skip what is unread: now, or everything from before a time', fromTime)
    .option('--yes', 'do not ask whether to skip')
    .action(
      async (options: CommonOptions & { readonly role: Role; readonly from?: Date | 'now'; readonly yes?: true }) => {
        const config = await loadConfig(options.config);
        checkRole(config, options.role);
        // A gateway has no use for the other one.
        if (options.role !== 'gateway') await assertOneDatabase(config);
        if (options.from !== undefined) await skip(config, options.from, options.yes === true);
        const log = createLogger({ level: config.logLevel, name: 'belfry' });
        // Without TLS there is nothing to read, and a terminal that goes away ends what runs in it.
        const started = config.server.tls === null ? null : reloadOnHangup(log);
        for (const warning of config.warnings) log.warn(warning);
        const { startApp } = await import('../app.js');
        await untilStopped(
          async () => {
            const app = await startApp(config, { role: options.role, log, processMetrics: true });
            started?.(app);
            return app;
          },
          (signal) => log.info({ signal }, 'stopping'),
        );
        log.info('stopped');
      },
    );
}

/** From now on; gives what is to be called with the app once it runs. A SIGHUP that came before that is heeded then. */
function reloadOnHangup(log: Logger): (app: App) => void {
  let running: App | null = null;
  let asked = false;
  process.on('SIGHUP', () => {
    asked = true;
    if (running !== null) void reload(running, log);
  });
  return (app) => {
    running = app;
    if (asked) void reload(app, log);
  };
}

async function reload(app: App, log: Logger): Promise<void> {
  try {
    await app.reload();
    log.info('the TLS files were read again');
  } catch (error) {
    log.error({ err: error }, 'the TLS files could not be used: those of before go on');
  }
}

function fromTime(text: string): Date | 'now' {
  return text === 'now' ? 'now' : pointInTime(text);
}

/** Events before that notify nobody; counters are counted from the tables instead. */
async function skip(config: Config, from: Date | 'now', sure: boolean): Promise<void> {
  await withClient(config.database.url, async (client) => {
    await assertMigrated(client);
    const time = from === 'now' ? null : from;
    const { skipped, kept, oldest } = await planSkip(client, time);
    if (skipped === 0) return note('belfry: nothing is unread from before: nothing is skipped');
    const what = `Skip ${counted(skipped, 'unread event')}, the oldest of ${oldest?.toISOString() ?? ''}? What is skipped notifies nobody; left to be read: ${kept}; counters are counted anew`;
    if (!sure) await confirm(what, 'start --from', 'nothing was skipped.');
    await skipTo(client, time, async () => {
      for (const source of config.sources) if (source.counter !== null) await seedCounter(client, source);
    });
    note(`belfry: skipped ${counted(skipped, 'unread event')}: belfry replay --since still finds what was skipped`);
  });
}

function checkRole(config: Config, role: Role): void {
  if (config.broker.kind !== 'memory' || role === 'all') return;
  throw new BelfryError(
    'config_invalid',
    `broker: memory reaches only this process, so --role ${role} would reach nobody: set broker to redis://... or nats://...`,
  );
}
