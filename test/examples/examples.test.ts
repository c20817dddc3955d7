/**
 * The examples, run as their README says: the backends in Python over HTTP, the Python client, the page in a real
 * Chromium. Where Python's packages are not installed, their tests are skipped by name.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import jwt from 'jsonwebtoken';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { launchBrowser } from '../support/browser.js';
import { projectRoot, testBuild } from '../support/build.js';
import { createTestDatabase, type TestDatabase } from '../support/postgres.js';
import { startBelfry, type Program } from '../support/program.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { until } from '../contract/rig.js';
import { freePort } from '../support/ports.js';

const secret = 'the-secret-of-the-examples-0123456789abcdef0123';
const token = (sub: string) => jwt.sign({ sub }, secret, { expiresIn: '1h' });

let database: TestDatabase;
let folder: string;
let belfry: Program;
/** Between the clients and Belfry. */
let proxy: Proxy;
let files: Server;
let pageOrigin: string;

beforeAll(async () => {
  const schema = await readFile(path.join(projectRoot, 'examples/schema.sql'), 'utf8');
  database = await createTestDatabase({ template: 'empty', prepare: schema });
  folder = await mkdtemp(path.join(tmpdir(), 'belfry-examples-'));
  files = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const [, top = '', ...rest] = pathname.split('/');
    // What `npm run build` puts into dist/, the tests have in dist-test/.
    const file = top === 'dist' ? path.join(testBuild, ...rest) : path.join(projectRoot, 'examples', ...rest);
    readFile(file).then(
      (body) => response.setHeader('content-type', file.endsWith('.js') ? 'text/javascript' : 'text/html').end(body),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => files.listen(0, 'localhost', resolve));
  pageOrigin = `http://localhost:${(files.address() as AddressInfo).port}`;

  const port = await freePort();
  const text = await readFile(path.join(projectRoot, 'examples/belfry.yaml'), 'utf8');
  const config = path.join(folder, 'belfry.yaml');
  proxy = await startProxy({ host: '127.0.0.1', port });
  await writeFile(config, text.replace('http://localhost:8080', pageOrigin));
  const env = { DATABASE_URL: database.url, JWT_SECRET: secret, PORT: String(port) };
  expect((await startBelfry(['migrate', '--config', config], { env }).exit).code).toBe(0);
  belfry = startBelfry(['start', '--config', config], { env });
  const ready = () => fetch(`http://127.0.0.1:${port}/readyz`).then(({ status }) => status === 200);
  await until('ready', () => ready().catch(() => false));
});

afterAll(async () => {
  await belfry.kill();
  await proxy.close();
  files.close();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

// Python --------------------------------------------------------------------------------------------------------------

/** A Python that has these packages, or null. */
function python(...packages: string[]): string | null {
  for (const command of ['python3', '/usr/bin/python3']) {
    try {
      execFileSync(command, ['-c', packages.map((name) => `import ${name}`).join('\n')], { stdio: 'ignore' });
      return command;
    } catch {
      // Not this one.
    }
  }
  return null;
}

interface Running {
  readonly child: ChildProcess;
  output: string;
}

function start(command: string, args: readonly string[]): Running {
  const env = { ...process.env, DATABASE_URL: database.url, PYTHONUNBUFFERED: '1' };
  const child = spawn(command, args, { cwd: projectRoot, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const running: Running = { child, output: '' };
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => (running.output += text.toString()));
  onTestFinished(async () => {
    const over = new Promise((resolve) => child.once('close', resolve));
    if (child.exitCode === null && child.kill('SIGKILL')) await over;
  });
  return running;
}

const frames = (running: Running) =>
  running.output
    .split('\n')
    .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as Record<string, unknown>] : []));
const withClient = python('websockets');
const arguments_ = (user: string) => [
  'examples/python-client/client.py',
  `ws://127.0.0.1:${proxy.port}/ws`,
  token(user),
  'post:1',
];

describe.skipIf(withClient === null)('the Python client (needs python3 with websockets)', () => {
  it('gets what concerns it, and resumes over a cut without loss or repetition', async () => {
    const client = start(withClient ?? '', arguments_('1'));
    await until('counters', () => client.output.includes('"counters"'));
    for (let i = 1; i <= 12; i++) {
      await database.pool.query(
        `insert into public.comments (post_id, user_id, content) values (1, 2, 'c' || $1::text)`,
        [i],
      );
      if (i % 4 === 0) proxy.reset();
    }
    const comments = () => frames(client).filter(({ event }) => event === 'comment_update');
    const notifications = () => frames(client).filter(({ event }) => event === 'notification');
    await until('all are there', () => comments().length >= 12 && notifications().length >= 12, 20_000);
    const first = Number(notifications()[0]?.['seq']);
    expect(notifications().map(({ seq }) => seq)).toEqual(Array.from({ length: 12 }, (_, i) => first + i));
    const offset = Number(comments()[0]?.['offset']);
    expect(comments().map((frame) => frame['offset'])).toEqual(Array.from({ length: 12 }, (_, i) => offset + i));
    expect(frames(client).filter(({ event }) => event === 'gap')).toEqual([]);
  });

  it('comes again where it is not let in: by a 503 of a gateway that drains, by a front that hangs up', async () => {
    const answers = ['HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n', ''];
    const front = createTcpServer((near) => {
      near.on('error', () => undefined);
      const answer = answers.shift();
      if (answer !== undefined) return void near.once('data', () => near.end(answer));
      const far = connect(proxy.port, '127.0.0.1').on('error', () => undefined);
      near.pipe(far).pipe(near);
    });
    await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void front.close());
    const [file = '', , ...rest] = arguments_('1');
    const { port } = front.address() as AddressInfo;
    const client = start(withClient ?? '', [file, `ws://127.0.0.1:${port}/ws`, ...rest]);
    await until('counters', () => client.output.includes('"counters"') || client.child.exitCode !== null, 20_000);
    expect(client.output).toContain('"counters"');
    expect(client.output.match(/not connected: /g)).toHaveLength(2);
  });

  it('stops at a final code', async () => {
    const client = start(withClient ?? '', arguments_('3'));
    await until('counters', () => client.output.includes('"counters"'));
    await database.pool.query(`select belfry.revoke('3')`);
    await until('over', () => client.child.exitCode !== null);
    expect(client.output).toContain('closed with 4403');
  });
});

interface Backend {
  readonly name: string;
  readonly packages: string[];
  readonly args: (port: number) => string[];
  readonly prefix: string;
}
const backends: Backend[] = [
  {
    name: 'Flask',
    packages: ['flask', 'psycopg'],
    args: (port) => ['-m', 'flask', '--app', 'examples/flask/app', 'run', '-p', String(port)],
    prefix: '/api',
  },
  {
    name: 'FastAPI',
    packages: ['fastapi', 'uvicorn', 'asyncpg'],
    args: (port) => ['-m', 'uvicorn', '--app-dir', 'examples/fastapi', 'app:app', '--port', String(port)],
    prefix: '',
  },
];

for (const { name, packages, args, prefix } of backends) {
  const command = python(...packages, 'websockets');
  describe.skipIf(command === null)(
    `the ${name} backend (needs python3 with ${packages.join(', ')}, websockets)`,
    () => {
      it('writes its tables, and the people concerned hear of it', async () => {
        const { rows } = await database.pool.query<{ ada: string; bo: string; post: string }>(`
        with u as (insert into public.users (full_name) values ('Ada'), ('Bo') returning id),
             p as (insert into public.posts (user_id, body) select min(id), 'Hi' from u returning id)
        select (select min(id) from u) as ada, (select max(id) from u) as bo, (select id from p) as post`);
        const { ada, bo, post } = rows[0] ?? { ada: '', bo: '', post: '' };
        const port = await freePort();
        const backend = start(command ?? '', args(port));
        const call = async (pathname: string, body: unknown = {}) => {
          const headers = { 'x-user': bo, 'content-type': 'application/json' };
          const answer = await fetch(`http://127.0.0.1:${port}${prefix}${pathname}`, {
            method: 'POST',
            headers,
            body: JSON.stringify(body),
          });
          if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}\n${backend.output}`);
          return (await answer.json()) as Record<string, unknown>;
        };
        await until(
          'it answers',
          () =>
            fetch(`http://127.0.0.1:${port}/`).then(
              () => true,
              () => false,
            ),
          20_000,
        );

        const [file, url] = arguments_(ada) as [string, string];
        const client = start(command ?? '', [file, url, token(ada), `post:${post}`]);
        await until('counters', () => client.output.includes('"counters"'));
        const told = (type: string) =>
          frames(client).find((frame) => (frame['data'] as { type?: string }).type === type)?.['data'];

        expect(await call(`/posts/${post}/like`)).toEqual({ success: true, liked: true, likes_count: 1 });
        await until('the like', () => told('like') !== undefined);
        expect(told('like')).toMatchObject({ user_id: bo, post_id: post, message: 'Bo liked your post' });
        await until('the count', () =>
          frames(client).some(
            ({ event, data }) => event === 'like_update' && (data as { likes_count: number }).likes_count === 1,
          ),
        );

        expect(await call(`/posts/${post}/like`)).toEqual({ success: true, liked: false, likes_count: 0 });
        await until('the end of the like', () => frames(client).some(({ event }) => event === 'withdrawn'));

        const { comment } = (await call(`/posts/${post}/comment`, { content: 'well said' })) as {
          comment: { id: number };
        };
        await until('the comment', () => told('comment') !== undefined);
        expect(told('comment')).toMatchObject({ comment_id: String(comment.id), user_id: bo });

        await call(`/users/follow/${ada}`);
        await call(`/users/follow/${ada}`);
        await until('the follow', () => told('follow') !== undefined);

        if (name === 'Flask') {
          await call(`/users/${ada}/hire`);
          await until('the job', () => told('job_application') !== undefined);
          expect(told('job_application')).toMatchObject({ message: 'You have the job', data: { by: bo } });
        }
      }, 60_000);
    },
  );
}

// The page ------------------------------------------------------------------------------------------------------------

describe('the page after the migration, in Chromium', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchBrowser();
  }, 120_000);
  afterAll(() => browser.close());

  const address = (user: string) =>
    `${pageOrigin}/examples/browser/after.html?token=${token(user)}&server=${encodeURIComponent(`http://127.0.0.1:${proxy.port}`)}`;

  const items = (page: Page) => page.locator('#list li').allTextContents();

  it('shows what happens, in every tab, over cuts and reloads, each thing once', async () => {
    const { rows } = await database.pool.query<{ id: string }>(
      `insert into public.users (full_name) values ('Dee'), ('Eve') returning id`,
    );
    const [dee = '', eve = ''] = rows.map(({ id }) => id);
    const context = await browser.newContext();
    onTestFinished(() => context.close());
    const [page, tab] = [await context.newPage(), await context.newPage()];
    const problems: string[] = [];
    for (const one of [page, tab]) one.on('pageerror', (error) => problems.push(error.message));
    const online = (one: Page) => until('online', async () => (await one.textContent('#status')) === 'online');
    for (const one of [page, tab]) {
      await one.goto(address(dee));
      await online(one);
    }
    const { rows: posts } = await database.pool.query<{ id: string }>(
      `insert into public.posts (user_id, body) values ($1, 'x') returning id`,
      [dee],
    );
    const comment = () =>
      database.pool.query(`insert into public.comments (post_id, user_id, content) values ($1, $2, 'c')`, [
        posts[0]?.id,
        eve,
      ]);

    await database.pool.query('insert into public.likes values ($1, 1)', [eve]);
    await database.pool.query('insert into public.likes values ($1, $2)', [eve, posts[0]?.id]);
    for (const one of [page, tab])
      await until('the like', async () => (await items(one)).includes('Eve liked your post'));
    await until('the badge', async () => (await page.textContent('#badge')) === '1');
    await until('the count of post 1', async () => (await page.textContent('#likes')) === '1');

    for (let i = 0; i < 6; i++) {
      if (i % 3 === 1) proxy.reset();
      await comment();
    }
    for (const one of [page, tab]) await until('all comments', async () => (await items(one)).length === 7, 20_000);

    // Frozen: nothing passes, nothing is closed; what happened meanwhile is there when the page is looked at again.
    await online(page);
    proxy.pause();
    await comment();
    await page.evaluate(() => dispatchEvent(new Event('online')));
    await until('it has noticed', async () => (await page.textContent('#status')) !== 'online', 10_000);
    proxy.reset();
    proxy.resume();
    for (const one of [page, tab]) await until('the seventh', async () => (await items(one)).length === 8, 40_000);

    await page.reload();
    await online(page);
    await until('the list', async () => (await items(page)).length === 8);
    await database.pool.query('delete from public.likes where user_id = $1', [eve]);
    for (const one of [page, tab]) {
      await until('the like is gone', async () => !(await items(one)).includes('Eve liked your post'));
      expect(await items(one)).toEqual(Array.from({ length: 7 }, () => 'Eve commented on your post'));
    }
    expect(problems).toEqual([]);
  }, 180_000);
});
