/** `belfry init` as a person meets it: real processes, a real database, a real terminal where `script` can make one. */

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { spawn, spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { parse } from 'yaml';
import { askAll } from '../../src/init/ask.js';
import { lookAt } from '../../src/init/look.js';
import { recognise } from '../../src/init/recognise.js';
import { testBuild } from '../support/build.js';
import { createTestDatabase, withUser } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const schema = `
  create table users (id bigserial primary key, name text not null, email text not null, password text not null);
  create table posts (id bigserial primary key, user_id bigint not null references users (id), body text);
  create table likes (user_id bigint references users (id), post_id bigint references posts (id), primary key (user_id, post_id));
  create table "_UserFollows" ("A" bigint references users (id), "B" bigint references users (id), primary key ("A", "B"));
  insert into users (name, email, password) values ('Secret Name', 'secret@example.org', 'secret-hash');
  analyze users;`;

const direction = 'public."_UserFollows".direction';

let database: TestDatabase;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'belfry-init-command-'));
  database = await createTestDatabase({ template: 'empty', prepare: schema });
});

afterAll(async () => {
  rmSync(folder, { recursive: true });
  await database.drop();
});

async function run(
  args: readonly string[],
  env: Readonly<Record<string, string>> = { DATABASE_URL: database.url },
): Promise<{ code: number | null; out: string; err: string }> {
  const program = startBelfry(args, { cwd: folder, env });
  const { code } = await program.exit;
  return { code, out: program.stdout, err: program.stderr };
}

const file = (name: string): string => path.join(folder, name);
const text = (name: string): string => readFileSync(file(name), 'utf8');

interface Written {
  readonly auth: { readonly secret: string };
  readonly sources: readonly { readonly name: string; readonly actor: string }[];
}

describe('the file', () => {
  it('is taken by migrate as it is, with nothing set but DATABASE_URL; nobody else may read its secret; row contents stay out', async () => {
    const { code, out, err } = await run(['init']);
    expect({ code, err: err.split('\n')[0] }).toEqual({
      code: 0,
      err: 'belfry: one question could not be decided from names, and stands in the file:',
    });
    expect(out).toContain('post_like: like, from public.likes');
    expect(err).toContain(direction);
    expect(statSync(file('belfry.yaml')).mode & 0o077).toBe(0);
    const written = parse(text('belfry.yaml')) as Written;
    expect(written.auth.secret).toMatch(/^\$\{JWT_SECRET:-[\w-]{43}\}$/);
    expect(written.sources.map(({ name }) => name)).toEqual(['post_like']);
    expect(text('belfry.yaml')).toContain(`# QUESTION (${direction})`);
    expect(text('belfry.yaml')).not.toMatch(/secret name|secret@|secret-hash/i);

    expect(await run(['migrate'])).toMatchObject({ code: 0 });
    expect(await run(['token', '--sub', '1'], {})).toMatchObject({
      code: 2,
      err: expect.stringContaining('DATABASE_URL') as string,
    });
    const token = await run(['token', '--sub', '1']);
    expect(token).toMatchObject({ code: 0, out: expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+\n$/) as string });
    // What migrate made is not the application's.
    expect(await run(['init', '--config', 'again.yaml'])).toMatchObject({ code: 0 });
    expect(text('again.yaml')).not.toContain('belfry.outbox');
  });

  it('is written and used as the head of docs/init.md says', () => {
    const [, commands = ''] = /\n((?: {4}.*\n)+)/.exec(readFileSync('docs/init.md', 'utf8')) ?? [];
    const script = commands
      .replace('postgres://…', database.url)
      .replaceAll('npx belfry start', 'true')
      .replaceAll('npx belfry', `'${process.execPath}' '${path.join(testBuild, 'cli', 'main.js')}'`);
    const cwd = mkdtempSync(path.join(folder, 'docs-'));
    const { status, stderr } = spawnSync('sh', ['-ec', script], { cwd, env: {}, encoding: 'utf8' });
    expect({ status, stderr }).toMatchObject({
      status: 0,
      stderr: expect.not.stringContaining('is not set') as string,
    });
  });

  it('that could not be written whole is not there, so that the next time works', () => {
    const cwd = mkdtempSync(path.join(folder, 'full-'));
    // Files of at most one block of 512 or 1,024 bytes: what is written beyond fails as it does on a full disk.
    const init = (limit: string): { status: number | null; stderr: string } =>
      spawnSync(
        'sh',
        ['-ec', `${limit} exec "$0" "$1" init`, process.execPath, path.join(testBuild, 'cli', 'main.js')],
        {
          cwd,
          env: { DATABASE_URL: database.url },
          encoding: 'utf8',
        },
      );
    expect(init('ulimit -f 1;')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^belfry: belfry\.yaml can't be written: /) as string,
    });
    expect(readdirSync(cwd)).toEqual([]);
    expect(init('')).toMatchObject({ status: 0 });
    expect(readdirSync(cwd)).toEqual(['belfry.yaml']);
  });

  it('that can not be written is named as it was asked for, and so is a folder that is not there', async () => {
    writeFileSync(file('plain'), '');
    for (const name of ['nowhere', 'plain'])
      expect(await run(['init', '--config', `${name}/x.yaml`])).toEqual({
        code: 1,
        out: '',
        err: `belfry: ${name}/x.yaml can't be written: there is no folder ${name}; make it, or name another file with --config.\n`,
      });
    const long = `${'x'.repeat(250)}.yaml`;
    expect(await run(['init', '--config', long])).toEqual({
      code: 1,
      out: '',
      err: `belfry: ${long} can't be written: ENAMETOOLONG: name too long, open '${long}'\n`,
    });
  });

  it('that is there stays as it is, exit 1 with one clear line; --force writes it anew', async () => {
    writeFileSync(file('mine.yaml'), 'mine');
    const refused = await run(['init', '--config', 'mine.yaml']);
    expect(refused).toEqual({
      code: 1,
      out: '',
      err: 'belfry: mine.yaml is there already and stays as it is: --force writes it anew, --config another file.\n',
    });
    expect(text('mine.yaml')).toBe('mine');
    expect(await run(['init', '--config', 'mine.yaml'], {})).toEqual(refused);
    expect(await run(['init', '--config', 'mine.yaml', '--force'])).toMatchObject({ code: 0 });
    expect(text('mine.yaml')).toContain('post_like');
  });

  it('of a database with nothing in it asks who people are, and is taken by migrate too', async () => {
    const empty = await createTestDatabase({ template: 'empty' });
    try {
      const env = { DATABASE_URL: empty.url, JWT_SECRET: 'a-secret-of-more-than-thirty-two-bytes' };
      expect(await run(['init', '--config', 'empty.yaml'], env)).toMatchObject({ code: 0 });
      expect(text('empty.yaml')).toContain('QUESTION (people)');
      expect(parse(text('empty.yaml'))).toMatchObject({ sources: [], auth: { secret: '${JWT_SECRET}' } });
      expect(await run(['migrate', '--config', 'empty.yaml'], env)).toMatchObject({ code: 0 });
    } finally {
      await empty.drop();
    }
  });
});

describe('answers', () => {
  it('on the command line make the choice; those that answer nothing are refused, exit 2, and nothing is written', async () => {
    expect(await run(['init', '--config', 'answered.yaml', '--answer', `${direction}=B`])).toMatchObject({
      code: 0,
      err: '',
    });
    const { sources } = parse(text('answered.yaml')) as Written;
    expect(sources.find(({ name }) => name === 'user_follow')).toMatchObject({ actor: 'B', recipient: 'A' });
    for (const [answer, message] of [
      [`${direction}=C`, 'are A, B'],
      ['nothing=A', `are ${direction}`],
      ['A', 'question=choice'],
    ] as const) {
      const refused = await run(['init', '--config', 'refused.yaml', '--answer', answer]);
      expect(refused).toMatchObject({ code: 2, out: '', err: expect.stringContaining(message) as string });
    }
    expect(existsSync(file('refused.yaml'))).toBe(false);
  });

  it('are not asked for where there is no terminal', async () => {
    expect(await run(['init', '--config', 'asked.yaml', '--ask'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('--ask needs a terminal') as string,
    });
    expect(existsSync(file('asked.yaml'))).toBe(false);
  });

  it('are taken from lines: a number, the choice itself, or nothing; a second question may follow from the first', async () => {
    const seen = await lookAt(await database.client());
    const ask = async (...lines: readonly string[]): Promise<{ answers: [string, string][]; shown: string }> => {
      const terminal = { input: new PassThrough(), output: new PassThrough() };
      let shown = '';
      const left = [...lines];
      terminal.output.on('data', (chunk: Buffer) => {
        shown += chunk.toString();
        if (chunk.toString().endsWith('> ')) terminal.input.write(`${left.shift() ?? ''}\n`);
      });
      const answers = await askAll(terminal, (given) => recognise(seen, given), new Map());
      return { answers: [...answers], shown };
    };
    expect((await ask('2')).answers).toEqual([[direction, 'B']]);
    expect((await ask('A')).answers).toEqual([[direction, 'A']]);
    const open = await ask('');
    expect(open.answers).toEqual([]);
    expect(open.shown).toContain('the person in B follows the person in A');
    const corrected = await ask('7', '1');
    expect(corrected.answers).toEqual([[direction, 'A']]);
    expect(corrected.shown).toContain('A number from 1 to 2');
  });

  it('that break off leave nothing written', async () => {
    const seen = await lookAt(await database.client());
    const terminal = { input: new PassThrough(), output: new PassThrough() };
    terminal.output.once('data', () => terminal.input.end());
    await expect(askAll(terminal, (given) => recognise(seen, given), new Map())).rejects.toMatchObject({
      code: 'unavailable',
    });
  });

  const hasScript = spawnSync('script', ['--version']).status === 0;
  describe.skipIf(!hasScript)('on a terminal (needs `script` of util-linux)', () => {
    async function onTerminal(name: string, answer: () => string): Promise<{ code: unknown; shown: string }> {
      const main = path.join(testBuild, 'cli', 'main.js');
      const child = spawn('script', ['-qec', `${process.execPath} ${main} init --config ${name} --ask`, '/dev/null'], {
        cwd: folder,
        env: { PATH: process.env['PATH'] ?? '', HOME: folder, DATABASE_URL: database.url },
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      let shown = '';
      child.stdout.on('data', (chunk: Buffer) => {
        shown += chunk.toString();
        if (shown.endsWith('> ')) child.stdin.write(answer());
      });
      const code = await new Promise((resolve) => child.once('close', resolve));
      return { code, shown };
    }

    it('are asked for and heeded', async () => {
      const { code, shown } = await onTerminal('terminal.yaml', () => '2\n');
      expect({ code, shown }).toEqual({ code: 0, shown: expect.stringContaining('Who follows whom') as string });
      expect((parse(text('terminal.yaml')) as Written).sources.map(({ name }) => name)).toContain('user_follow');
    });

    it('do not cost a file that somebody wrote while they were thought over', async () => {
      const { code, shown } = await onTerminal('raced.yaml', () => {
        writeFileSync(file('raced.yaml'), 'mine');
        return '2\n';
      });
      expect({ code, shown }).toEqual({ code: 1, shown: expect.stringContaining('is there already') as string });
      expect(text('raced.yaml')).toBe('mine');
    });

    it('that are broken off with Ctrl-C leave no file', async () => {
      const { code } = await onTerminal('stopped.yaml', () => '\u0003');
      expect(code).not.toBe(0);
      expect(existsSync(file('stopped.yaml'))).toBe(false);
    });
  });
});

describe('what it needs', () => {
  it('is a database: without DATABASE_URL exit 2, without a server exit 1, one line each', async () => {
    const missing = await run(['init', '--config', 'none.yaml'], {});
    expect(missing).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(/^belfry: DATABASE_URL is not set.*\n$/) as string,
    });
    const gone = await run(['init', '--config', 'none.yaml'], { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' });
    expect(gone).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringMatching(/^belfry: Nothing listens.*\n$/) as string,
    });
    expect(existsSync(file('none.yaml'))).toBe(false);
  });

  it('is no right on any table, so it can read no row; one JSON document on stdout says all', async () => {
    const role = `${database.name}_looker`;
    await database.pool.query(`create role ${role} login password 'look'`);
    try {
      const looker = withUser(database.url, role, 'look');
      const { code, out, err } = await run(['init', '--config', 'looked.yaml', '--json'], { DATABASE_URL: looker });
      expect({ code, err }).toEqual({ code: 0, err: '' });
      expect(JSON.parse(out)).toMatchObject({
        config: 'looked.yaml',
        people: { table: { value: 'public.users' } },
        sources: [
          {
            name: 'post_like',
            type: 'like',
            table: 'public.likes',
            actor: { value: 'user_id', reason: 'foreign key to public.users' },
          },
          {},
          {},
        ],
        questions: [{ id: direction, choices: [{ id: 'A' }, { id: 'B' }], fallback: null, answer: null }],
      });
      expect(text('looked.yaml')).toContain('must run as their owner: public.likes');
    } finally {
      await database.pool.query(`drop role ${role}`);
    }
  });
});
