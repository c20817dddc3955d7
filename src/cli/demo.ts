/** `belfry demo`: the demo, with nothing installed but this. */

import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { logLevelOf, portOf } from '../config.js';
import { createLogger } from '../log.js';
import { addCommand, print, wholeNumber } from './common.js';
import { untilStopped } from './signals.js';

interface DemoOptions {
  readonly port?: number;
  readonly dataDir: string;
  readonly simulate: number;
}

export function registerDemo(program: Command): void {
  addCommand(
    program,
    'demo',
    'run a small social app on an embedded Postgres, with Belfry beside it (has a config of its own)',
  )
    .option('--port <port>', 'where the page is; by default PORT, or 10000', wholeNumber(0, 65_535))
    .option('--data-dir <dir>', 'where its database is kept between runs', '.data/demo')
    .option('--simulate <rate>', 'writes per second by a crowd, from the start', rate, 0)
    .action(async ({ port = portOf(), dataDir, simulate }: DemoOptions) => {
      const log = createLogger({ level: logLevelOf(undefined, undefined, 'warn'), name: 'demo' });
      const { startDemo } = await import('../embedded/demo.js');
      print('Starting Postgres, the app and Belfry ...');
      await untilStopped(
        async () => {
          const demo = await startDemo({ port, dataDir, simulate, log });
          print(`Belfry's demo is at ${demo.url}   (Ctrl-C stops it)`);
          return demo;
        },
        () => print('Stopping ...'),
      );
    });
}

function rate(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 2_000)) {
    throw new InvalidArgumentError('It must be a number of writes per second from 0 to 2000.');
  }
  return value;
}
