/**
 * All commands; each file registers its own and brings what its command needs, so only what was asked for is loaded: `belfry token`
 * waits for no database driver.
 */

import { readFileSync } from 'node:fs';
import { Command } from 'commander';

/** Answered without any command. */
const versionFlags: ReadonlySet<string> = new Set(['-V', '--version']);

type Register = (program: Command) => void;

/** In the order in which --help lists them. */
const commands = new Map<string, () => Promise<Register>>([
  ['demo', async () => (await import('./demo.js')).registerDemo],
  ['init', async () => (await import('./init.js')).registerInit],
  ['migrate', async () => (await import('./migrate.js')).registerMigrate],
  ['start', async () => (await import('./start.js')).registerStart],
  ['status', async () => (await import('./status.js')).registerStatus],
  ['doctor', async () => (await import('./doctor.js')).registerDoctor],
  ['pause', async () => (await import('./pause.js')).registerPause],
  ['resume', async () => (await import('./pause.js')).registerResume],
  ['roles', async () => (await import('./roles.js')).registerRoles],
  ['outbox', async () => (await import('./outbox.js')).registerOutbox],
  ['replay', async () => (await import('./replay.js')).registerReplay],
  ['explain', async () => (await import('./explain.js')).registerExplain],
  ['dead-letter', async () => (await import('./dead-letter.js')).registerDeadLetter],
  ['token', async () => (await import('./token.js')).registerToken],
  ['tail', async () => (await import('./tail.js')).registerTail],
  ['uninstall', async () => (await import('./uninstall.js')).registerUninstall],
]);

/** `belfry --config FILE status` as `belfry status --config FILE`: where options stand before the command in other programs. */
export function commandFirst(args: readonly string[]): readonly string[] {
  const [first = ''] = args;
  const length = /^(?:-c|--config)$/.test(first) ? 2 : /^(?:-c.|--config=)/.test(first) ? 1 : 0;
  const rest = args.slice(length);
  // Without a command nothing is asked for, and the help is shown.
  if (rest.length === 0) return rest;
  const end = rest.includes('--') ? rest.indexOf('--') : rest.length;
  return [...rest.slice(0, end), ...args.slice(0, length), ...rest.slice(end)];
}

/**
 * The program for these arguments: with the command that they begin with, else with all, as --help and a wrong name need them. Its
 * `parse` throws CommanderError instead of ending the process.
 */
export async function createProgram([asked = '']: readonly string[] = []): Promise<Command> {
  const program = new Command('belfry')
    .description('Live updates from Postgres: triggers write an outbox, one relay reads it, people see it.')
    .version(version())
    .exitOverride()
    .showHelpAfterError('(run it with --help to see how)')
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 it failed, 2 wrong usage or config.\nVariables: DATABASE_URL JWT_SECRET REDIS_URL NATS_URL PORT LOG_LEVEL win over the config.',
    );
  const one = commands.get(asked);
  const loads = one !== undefined ? [one] : versionFlags.has(asked) ? [] : [...commands.values()];
  for (const register of await Promise.all(loads.map((load) => load()))) register(program);
  return program;
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
