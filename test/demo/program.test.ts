/** `belfry demo` as a program: what it finds, what it says in one line, and that it comes back after whatever befell it. */
import { chmod, chown, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { canReach, chooseAccount } from '../../src/embedded/account.js';
import { projectRoot } from '../support/build.js';
import { type Program, startBelfry } from '../support/program.js';

let folder: string;
const running: Program[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-demo-program-'));
  // As root, Postgres runs as another user, who must get in.
  await chmod(folder, 0o755);
  return async () => {
    // What a killed demo leaves behind ends by itself, within moments.
    await rm(folder, { recursive: true, force: true, maxRetries: 40, retryDelay: 250 });
  };
});
afterEach(async () => {
  for (const program of running.splice(0)) await program.kill();
});

const data = () => path.join(folder, 'data');

function demo(port: number | string = 0, dataDir = data()): Program {
  const program = startBelfry(['demo', '--port', String(port), '--data-dir', dataDir]);
  running.push(program);
  return program;
}

interface Shown {
  readonly url: string;
  readonly backend: string;
}

async function shown(program: Program): Promise<Shown> {
  const [, url = ''] = await program.waitFor(/at (http:\/\/localhost:\d+\/)/);
  const session = (await (await fetch(`${url}demo/session.json`)).json()) as { backendPort: number };
  return { url, backend: `http://localhost:${session.backendPort}` };
}

interface Post {
  readonly id: string;
  readonly name: string;
  readonly likes_count: number;
}

/** The post of Bo, as Ada sees it. */
async function postOfBo({ backend }: Shown): Promise<Post | undefined> {
  const { posts } = (await (await fetch(`${backend}/demo/feed?as=1`)).json()) as { posts: Post[] };
  return posts.find(({ name }) => name === 'Bo');
}

/** Bo's notifications, as the page would fetch them. */
async function notifications({ url, backend }: Shown): Promise<string[]> {
  const { token } = (await (await fetch(`${backend}/watch/token?person=2`)).json()) as { token: string };
  const answer = await fetch(`${url}api/notifications`, { headers: { authorization: `Bearer ${token}` } });
  return ((await answer.json()) as { items: { message: string }[] }).items.map(({ message }) => message);
}

async function endsByCtrlC(program: Program, { url }: Shown): Promise<void> {
  program.child.kill('SIGINT');
  expect(await program.exit).toEqual({ code: 0, signal: null });
  await expect(fetch(url)).rejects.toThrow();
}

test(
  'killed, it comes back with everything; a port in use is told in one line; Ctrl-C ends it cleanly',
  { timeout: 120_000 },
  async () => {
    const first = demo();
    const before = await shown(first);
    const post = await postOfBo(before);
    await fetch(`${before.backend}/demo/posts/${post?.id}/like?as=1`, { method: 'POST' });
    await expect.poll(() => notifications(before), { timeout: 20_000 }).toEqual(['Ada liked your post']);
    const { port } = new URL(before.url);
    const second = demo(port, path.join(folder, 'other'));
    expect((await second.exit).code).toBe(1);
    expect(second.stderr.trim()).toMatch(new RegExp(`^[^\n]*[Pp]ort ${port} is in use[^\n]*--port[^\n]*$`));
    const third = demo(0);
    expect((await third.exit).code).toBe(1);
    expect(third.stderr.trim()).toMatch(/^belfry: [^\n]* is in use by process \d+[^\n]*$/);

    await first.kill();
    const again = demo();
    const after = await shown(again);
    expect(await notifications(after)).toEqual(['Ada liked your post']);
    expect((await postOfBo(after))?.likes_count).toBe((post?.likes_count ?? 0) + 1);
    await fetch(`${after.backend}/demo/posts/${post?.id}/like?as=3`, { method: 'POST' });
    await expect.poll(async () => (await postOfBo(after))?.likes_count).toBe((post?.likes_count ?? 0) + 2);
    await endsByCtrlC(again, after);
    expect(again.stderr).toBe('');
  },
);

test('a half-made data directory is put aside, in one line', { timeout: 120_000 }, async () => {
  // Killed within initdb by an older version, or half copied.
  await mkdir(path.join(data(), 'cluster', 'base'), { recursive: true });
  await writeFile(path.join(data(), 'cluster', 'PG_VERSION'), '18\n');
  await writeFile(path.join(data(), 'owner.json'), '{"pid":');
  // PORT is as good as --port.
  const program = startBelfry(['demo', '--data-dir', data()], { env: { PORT: '0' } });
  running.push(program);
  const there = await shown(program);
  expect(new URL(there.url).port).not.toBe('10000');
  expect((await postOfBo(there))?.name).toBe('Bo');
  expect(program.stdout + program.stderr).toMatch(/^[^\n]*was incomplete[^\n]*starting afresh[^\n]*$/m);
});

test('a data directory that is a file is told in one line', { timeout: 120_000 }, async () => {
  await writeFile(data(), 'mine');
  const program = demo();
  expect((await program.exit).code).toBe(1);
  expect(program.stderr.trim()).toMatch(/^belfry: [^\n]*data[^\n]*$/);
});

test('as an ordinary user, to whom the checkout does not belong', { timeout: 120_000 }, async ({ skip }) => {
  const account = await chooseAccount();
  if (account.uid === undefined) return skip('everything here runs as an ordinary user');
  if (!(await canReach(projectRoot, account)) || !(await canReach(process.execPath, account)))
    return skip('the checkout or Node lies where an ordinary user can not go');
  await chown(folder, account.uid, account.gid);
  const program = startBelfry(['demo', '--port', '0', '--data-dir', data()], { account, env: { HOME: folder } });
  running.push(program);
  const there = await shown(program);
  expect((await postOfBo(there))?.name).toBe('Bo');
  expect((await stat(path.join(data(), 'cluster'))).uid).toBe(account.uid);
  await endsByCtrlC(program, there);
});
