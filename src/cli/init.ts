/** `belfry init`: looks at a database and writes a config for it, with a reason beside each choice and questions where names don't tell. */

import { randomBytes } from 'node:crypto';
import { constants, existsSync, statSync } from 'node:fs';
import { copyFile, link, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import { tableKey } from '../capture/catalog.js';
import { capturedSources } from '../capture/desired.js';
import { databaseUrlOf, hasJwtSecret, parseConfig } from '../config.js';
import type { Config } from '../config.js';
import { counted } from '../counted.js';
import { BelfryError, messageOf } from '../errors.js';
import { askAll } from '../init/ask.js';
import { columnOf, tableText, type Database } from '../init/database.js';
import type { Draft } from '../init/draft.js';
import { lookAt } from '../init/look.js';
import { recognise } from '../init/recognise.js';
import { writeConfig } from '../init/write.js';
import { addReadingCommand, note, print, printJson, withClient } from './common.js';
import type { ReadingOptions } from './common.js';

interface InitOptions extends ReadingOptions {
  readonly force?: true;
  readonly ask?: true;
  readonly answer: ReadonlyMap<string, string>;
}

export function registerInit(program: Command): void {
  addReadingCommand(program, 'init', 'look at a database (never at its rows) and write a config for it')
    .option('--force', 'write over a config that is there')
    .option('--ask', 'ask on the terminal what names do not tell')
    .option(
      '--answer <question=choice>',
      'the answer to a question of the file; may be repeated',
      addAnswer,
      new Map<string, string>(),
    )
    .addHelpText(
      'after',
      '\nNeeds DATABASE_URL. Without --ask it asks nothing: questions stand in the file, as comments.',
    )
    .action(init);
}

async function init(options: InitOptions): Promise<void> {
  const { config: path, force } = options;
  if (!force && existsSync(path)) throw alreadyThere(path);
  const folder = dirname(path);
  if (!isFolder(folder))
    throw cannotWrite(path, `there is no folder ${folder}; make it, or name another file with --config.`);
  const url = databaseUrlOf();
  if (url === '')
    throw new BelfryError(
      'config_invalid',
      'DATABASE_URL is not set: export DATABASE_URL=postgres://user:password@host:port/database first; the config names it too.',
    );
  if (options.ask && !(process.stdin.isTTY && process.stderr.isTTY))
    throw new BelfryError(
      'config_invalid',
      '--ask needs a terminal: leave it out, and find the questions in the file.',
    );
  await withClient(url, async (client) => {
    const database = await lookAt(client);
    const draftFor = (answers: ReadonlyMap<string, string>): Draft => recognise(database, answers);
    const answers = options.ask
      ? await askAll({ input: process.stdin, output: process.stderr }, draftFor, options.answer)
      : options.answer;
    const draft = draftFor(answers);
    assertAnswered(draft, options.answer);
    const secret = hasJwtSecret() ? null : randomBytes(32).toString('base64url');
    const command = path === 'belfry.yaml' ? 'belfry init' : `belfry init --config ${path}`;
    const text = writeConfig(draft, { secret, command });
    assertAccepted(database, text, path, url);
    await save(path, text, { force: force === true, secret: secret !== null });
    if (options.json) printJson(documentOf(draft, path));
    else tell(draft, path);
  });
}

function alreadyThere(path: string): BelfryError {
  return new BelfryError(
    'unavailable',
    `${path} is there already and stays as it is: --force writes it anew, --config another file.`,
  );
}

/** An answer to nothing is a mistake of the command line. */
function assertAnswered(draft: Draft, answers: ReadonlyMap<string, string>): void {
  for (const [id, choice] of answers) {
    const question = draft.questions.find((known) => known.id === id);
    if (question !== undefined && question.answer === choice) continue;
    const choices = (
      question === undefined
        ? draft.questions.filter((known) => known.choices.length > 0).map((known) => known.id)
        : question.choices.map((known) => known.id)
    ).join(', ');
    const what = question === undefined ? `there is no question ${id}` : `${choice} is no answer to ${id}`;
    throw new BelfryError(
      'config_invalid',
      `--answer: ${what}; there ${choices === '' ? 'is none' : `are ${choices}`}.`,
    );
  }
}

/** What is written is what `migrate` takes: whatever it would object to is a fault of ours, and nothing is written. */
function assertAccepted(database: Database, text: string, path: string, url: string): void {
  const fail = (why: string, cause?: unknown): never => {
    const message = 'The config that would be written is not valid; please report it with the names of your tables';
    throw new BelfryError('internal', `${message}: ${why}`, { cause });
  };
  let config: Config | null = null;
  try {
    config = parseConfig(
      text,
      { DATABASE_URL: url, JWT_SECRET: 'as long as any secret that is long enough' },
      { path },
    );
  } catch (error) {
    return fail(messageOf(error).replaceAll('\n', ' '), error);
  }
  for (const source of capturedSources(config)) {
    const table = database.byKey.get(tableKey(source.table));
    if (table === undefined) return fail(`${source.path} is of no table`);
    for (const name of source.columns)
      if (columnOf(table, name)?.virtual !== false)
        fail(`${source.path} needs column ${name}, which can't be captured`);
  }
}

/** As a whole or not at all; readable by its owner only where it holds a secret. */
async function save(path: string, text: string, { force, secret }: { force: boolean; secret: boolean }): Promise<void> {
  const mode = secret ? 0o600 : 0o644;
  const beside = `${path}.${randomBytes(4).toString('hex')}`;
  try {
    await writeFile(beside, text, { flag: 'wx', mode });
    // A link is refused where a file of that name is there meanwhile; some file systems have none, where a copy is.
    if (force) await rename(beside, path);
    else await link(beside, path).catch(() => copyFile(beside, path, constants.COPYFILE_EXCL));
  } catch (error) {
    if (isThere(error)) throw alreadyThere(path);
    throw cannotWrite(path, messageOf(error).replaceAll(beside, path), error);
  } finally {
    // What kept it from being written may keep it from being looked for.
    await rm(beside, { force: true }).catch(() => undefined);
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function isThere(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EEXIST';
}

function cannotWrite(path: string, why: string, cause?: unknown): BelfryError {
  return new BelfryError('unavailable', `${path} can't be written: ${why}`, { cause });
}

function documentOf(draft: Draft, path: string): unknown {
  const { framework, people, pairs, sources, channels, questions, ignored, notes } = draft;
  const name = (item: { readonly table: { readonly schema: string; readonly name: string } }): unknown => ({
    ...item,
    table: tableText(item.table),
  });
  return {
    config: path,
    framework,
    people: people === null ? null : { ...people, table: { ...people.table, value: tableText(people.table.value) } },
    pairs: pairs.map(name),
    sources: sources.map(name),
    channels,
    questions,
    ignored: ignored.map(name),
    notes,
  };
}

function tell(draft: Draft, path: string): void {
  const plain = draft.sources.filter(({ reading }) => reading === null);
  print(
    `${path} is written: ${counted(plain.length, 'source')}${draft.people === null ? '' : `, people are in ${tableText(draft.people.table.value)}`}.`,
  );
  for (const { name, type, table } of plain) print(`  ${name}: ${type}, from ${tableText(table)}`);
  const open = draft.questions.filter(({ answer }) => answer === null);
  if (open.length > 0)
    note(
      `belfry: ${open.length === 1 ? 'one question' : `${String(open.length)} questions`} could not be decided from names, and stand${open.length === 1 ? 's' : ''} in the file:`,
    );
  for (const { id, text } of open) note(`  ${id}: ${text}`);
  print('Read it, then run `belfry migrate` and `belfry start`.');
}

function addAnswer(text: string, before: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('It must look like question=choice.');
  return new Map(before).set(text.slice(0, equals), text.slice(equals + 1));
}
