/** The command line as a person or a script meets it: real processes, their exit codes and what they say. */

import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import jwt from 'jsonwebtoken';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { createProgram } from '../../src/cli/program.js';
import { startBelfry } from '../support/program.js';
import type { ProgramOptions } from '../support/program.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const SECRET = 'a-secret-of-more-than-thirty-two-bytes';
const folder = mkdtempSync(join(tmpdir(), 'belfry-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

async function run(
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<{ code: number | null; out: string; err: string }> {
  const program = startBelfry(args, { cwd: folder, ...options });
  const { code } = await program.exit;
  return { code, out: program.stdout, err: program.stderr };
}

const good = write(
  'good.yaml',
  `version: 1\ndatabase: { url: "postgres://nobody@127.0.0.1:1/none" }\nauth: { secret: ${SECRET}, issuer: me, audience: [app, other] }\nsources: []`,
);

/** `outbox`, `outbox list`, `status`, …: every command, and every group of them. */
function namesOf(command: Command, prefix: readonly string[] = []): string[][] {
  return command.commands.flatMap((child) => {
    const name = [...prefix, child.name()];
    return [name, ...namesOf(child, name)];
  });
}

describe('help', () => {
  it('is there for every command, names --config, and costs nothing', async () => {
    const commands = namesOf(await createProgram());
    expect(commands.length).toBeGreaterThan(10);
    // Side by side, since each is a process.
    const answers = await Promise.all(commands.map(async (command) => run([...command, '--help'])));
    answers.forEach(({ code, out, err }, index) => {
      const command = commands[index] ?? [];
      expect({ command, code, err }).toEqual({ command, code: 0, err: '' });
      expect(out).toContain(`Usage: belfry ${command.join(' ')}`);
      expect(out).toContain('--config');
    });
  });

  it('of the whole names the variables and exit codes; --version is the one of package.json', async () => {
    expect((await run(['--help'])).out).toMatch(/Exit codes[\s\S]*DATABASE_URL/);
    expect(await run(['--version'])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
    });
  });
});

it.each([[['-c', good]], [[`--config=${good}`]]])('the config may stand before the command: %j', async (config) => {
  const token = await run([...config, 'token', '--sub', '7']);
  expect(token).toMatchObject({ code: 0, out: expect.stringMatching(/^[\w-]+[.][\w-]+[.][\w-]+\n$/) as string });
  expect((await run([...config, 'dead-letter', 'show', 'x'])).err).toMatch(/x/);
  expect(await run([...config])).toMatchObject({ code: 2 });
});

it.each([
  [['outbox', '--config', good, 'list']],
  [['outbox', 'list', '--config', good]],
  [['outbox', '-c', 'none.yaml', 'list', '-c', good]],
  [['dead-letter', `--config=${good}`, 'show', '1']],
])('the config may stand before the command of a group, whose own wins: %j', async (args) => {
  // The database of that config, which is not there.
  expect(await run(args)).toMatchObject({ code: 1, err: expect.stringContaining('127.0.0.1:1') as string });
});

describe('wrong usage ends with 2 and a line that says so', () => {
  it.each([
    [[], /Usage/],
    [['nonsense'], /unknown command 'nonsense'/],
    [['status', '--colour'], /unknown option '--colour'/],
    [['status', 'extra'], /too many arguments/],
    [['token'], /--sub/],
    [['token', '--sub', '1', '--ttl', '1'], /duration/],
    [['token', '--sub', '1', '--claim', 'role'], /name=value/],
    [['token', '--sub', ''], /empty/],
    [['token', '--sub', '1', '--ttl', '0s'], /at least 1s/],
    [['token', '--sub', '1', '--ttl', '999ms'], /at least 1s/],
    [['token', '--sub', '1', '--claim', 'sub=7', '-c', good], /--claim sub: that claim is set by --sub/],
    [['token', '--sub', '1', '--claim', 'exp=1', '-c', good], /--claim exp: that claim is set by --ttl/],
    [['outbox', 'list', '--object', '', '-c', good], /kind:id/],
    [['outbox', 'list', '--object', ':1', '-c', good], /kind:id/],
    [['replay', '--object', 'post:', '-c', good], /kind:id/],
    [['replay', '--user', '', '-c', good], /empty/],
    [['replay', '--stop', '1', '--dry-run', '-c', good], /'--stop <id>' cannot be used with option '--dry-run'/],
    [['replay', '--list', '--source', 'x', '-c', good], /'--list' cannot be used with option '--source <name>'/],
    [['replay', '--since', '2026-02-30', '-c', good], /must be a time/],
    [['outbox', 'list', '--until', '2026-11-31T10:00Z', '-c', good], /must be a time/],
    [['dead-letter', 'retry', '--source', '', '-c', good], /empty/],
    [['outbox', 'list', '--type', '', '-c', good], /empty/],
    [['explain', '1', '--user', '', '-c', good], /empty/],
    [['tail'], /--token/],
    [['tail', '--token', 'x', '--since', '5'], /--since and --epoch/],
    [['tail', '--token', 'x', '--url', 'localhost'], /ws:\/\//],
    [['start', '--role', 'boss'], /all, relay, gateway/],
    [['demo', '--port', '70000'], /from 0 to 65535/],
    [['demo', '--simulate', 'fast'], /per second/],
    [['dead-letter', 'show', 'x'], /id of an event/],
    [['dead-letter', 'list', '--limit', '0'], /from 1/],
  ])('%j', async (args, message) => {
    const { code, out, err } = await run(args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(message);
    expect(err).not.toMatch(/ at .*\.js/);
  });
});

it('so does a PORT that is none', async () => {
  const { code, err } = await run(['demo', '--data-dir', good], { env: { PORT: '70000' } });
  expect({ code, err }).toEqual({ code: 2, err: 'belfry: PORT must be a whole number from 0 to 65535\n' });
});

describe('config', () => {
  it('that is missing is answered with what to do, exit 2', async () => {
    const { code, err } = await run(['token', '--sub', '1']);
    expect(code).toBe(2);
    expect(err).toMatch(/^belfry: there is no belfry\.yaml here: run `belfry init`.*docs.*--config\n$/);
  });

  it('with five errors has all five told, exit 2', async () => {
    const bad = write(
      'bad.yaml',
      'version: 3\ndatabase: {}\nauth: { secret: "${NOT_SET}" }\nsources: [{ name: a }]\nbogus: 1',
    );
    for (const command of [['start'], ['token', '--sub', '1'], ['pause']]) {
      const { code, err } = await run([...command, '--config', bad]);
      expect(code).toBe(2);
      for (const path of ['version', 'database.url', 'auth.secret', 'sources[0].type', 'bogus'])
        expect(err).toContain(`  ${path}: `);
      expect(err).not.toMatch(/ at .*\.js/);
    }
  });

  it('with broker memory and a single role is refused, exit 2', async () => {
    const { code, err } = await run(['start', '--role', 'gateway', '--config', good]);
    expect(code).toBe(2);
    expect(err).toMatch(/^belfry: broker: memory .*\n$/);
  });
});

describe('failure', () => {
  it('is one line on stderr, exit 1; a stack only where asked for', async () => {
    const failed = await run(['status', '--config', good]);
    expect(failed).toMatchObject({ code: 1, out: '' });
    expect(failed.err).toMatch(/^belfry: Nothing listens at 127\.0\.0\.1:1[^\n]*\n$/);
    const debug = await run(['status', '--config', good], { env: { LOG_LEVEL: 'debug' } });
    expect(debug.err).toMatch(/ at .*\.js/);
  });

  it('needs no config where DATABASE_URL is enough', async () => {
    const { code, err } = await run(['pause'], { env: { DATABASE_URL: 'postgres://127.0.0.1:1/x' } });
    expect(code).toBe(1);
    expect(err).toMatch(/Nothing listens/);
  });
});

describe('token', () => {
  it('is signed with the secret and printed alone', async () => {
    const { code, out } = await run([
      'token',
      '--sub',
      '42',
      '--ttl',
      '90s',
      '--claim',
      'role=admin',
      '--claim',
      'n=5',
      '--claim',
      'zip=007',
      '-c',
      good,
    ]);
    expect(code).toBe(0);
    expect(out).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    const claims = jwt.verify(out.trim(), SECRET, {
      algorithms: ['HS256'],
      issuer: 'me',
      audience: 'app',
    }) as jwt.JwtPayload;
    expect(claims).toMatchObject({ sub: '42', role: 'admin', n: 5, zip: '007' });
    expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(90);
  });

  it('follows algorithm, user claim and JWT_SECRET', async () => {
    const config = write(
      'hs512.yaml',
      'version: 1\ndatabase: { url: "postgres://h/d" }\nauth: { secret: x, algorithms: [HS512], userClaim: uid }\nsources: []',
    );
    const { out } = await run(['token', '--sub', 'me', '--config', config], { env: { JWT_SECRET: SECRET } });
    const { header, payload } = jwt.verify(out.trim(), SECRET, { algorithms: ['HS512'], complete: true });
    expect(header.alg).toBe('HS512');
    expect(payload).toMatchObject({ uid: 'me' });
    expect(payload).not.toHaveProperty('sub');
  });

  it('cannot be made where only a public key is known', async () => {
    write(
      'key.pem',
      generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'pem' }) as string,
    );
    const config = write(
      'public.yaml',
      'version: 1\ndatabase: { url: "postgres://h/d" }\nauth: { publicKey: key.pem }\nsources: []',
    );
    const { code, err } = await run(['token', '--sub', '1', '--config', config]);
    expect(code).toBe(1);
    expect(err).toMatch(/^belfry: auth\.publicKey can only check tokens/);
  });
});
