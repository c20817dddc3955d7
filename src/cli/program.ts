/** All commands; each file registers its own. */

import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { registerDeadLetter } from './dead-letter.js';
import { registerDemo } from './demo.js';
import { registerDoctor } from './doctor.js';
import { registerInit } from './init.js';
import { registerExplain } from './explain.js';
import { registerMigrate } from './migrate.js';
import { registerOutbox } from './outbox.js';
import { registerPause } from './pause.js';
import { registerReplay } from './replay.js';
import { registerRoles } from './roles.js';
import { registerStart } from './start.js';
import { registerStatus } from './status.js';
import { registerTail } from './tail.js';
import { registerToken } from './token.js';
import { registerUninstall } from './uninstall.js';

/** Throws CommanderError instead of ending the process. */
export function createProgram(): Command {
  const program = new Command('belfry')
    .description('Live updates from Postgres: triggers write an outbox, one relay reads it, people see it.')
    .version(version())
    .exitOverride()
    .showHelpAfterError('(run it with --help to see how)')
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 it failed, 2 wrong usage or config.\nVariables: DATABASE_URL JWT_SECRET REDIS_URL NATS_URL PORT LOG_LEVEL win over the config.',
    );
  registerDemo(program);
  registerInit(program);
  registerMigrate(program);
  registerStart(program);
  registerStatus(program);
  registerDoctor(program);
  registerPause(program);
  registerRoles(program);
  registerOutbox(program);
  registerReplay(program);
  registerExplain(program);
  registerDeadLetter(program);
  registerToken(program);
  registerTail(program);
  registerUninstall(program);
  return program;
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
