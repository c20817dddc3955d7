/** Replay and explain as an operator uses them: a mapping that was wrong, beside a relay that runs and without one. */

import { writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startBelfry, type Program } from '../support/program.js';
import { configText, http, Raw, run, startRig, until, type Rig } from './rig.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

let rig: Rig;
let program: Program | null = null;
let author: string;
let people: string[];
let post: string;

const mistaken = (text: string): string =>
  text.replace(/(name: post_comment[\s\S]*?recipient: )\{ path.*/, '$1user_id');

beforeAll(async () => {
  rig = await startRig('', mistaken);
  author = await rig.user('Grace');
  people = await Promise.all(['Ada', 'Bo', 'Cleo'].map((name) => rig.user(name)));
  post = await rig.post(author);
});
afterAll(async () => {
  await program?.kill();
  await rig.stop();
});

const json = (text: string) => JSON.parse(text) as Record<string, unknown>;

async function replay(...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await run(['replay', '--json', '--config', rig.configPath, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout.trim().split('\n')).toHaveLength(1);
  return json(stdout);
}

async function explain(id: string, ...args: string[]): Promise<unknown> {
  const { code, stdout } = await run(['explain', id, '--json', '--config', rig.configPath, ...args]);
  expect(code).toBe(0);
  return json(stdout);
}

const list = async (): Promise<unknown[]> =>
  (await http(rig, 'GET', '/api/notifications', { as: author })).body['items'] as unknown[];

const readToTheEnd = () =>
  until('nothing is unread', async () => {
    const { rows } = await rig.db.query<{ events: string }>('select events from belfry.lag');
    return rows[0]?.events === '0';
  });

describe('a mapping that was wrong', () => {
  let id: string;

  it('is seen, mended, counted, replayed, and not replayed twice', async () => {
    for (const who of people)
      await rig.db.query(`insert into public.comments (user_id, post_id, content) values ($1, $2, 'hi')`, [who, post]);
    await readToTheEnd();
    expect(await list()).toEqual([]);
    id = (await rig.db.query<{ id: string }>('select min(id)::text as id from belfry.outbox')).rows[0]?.id ?? '';

    // Grace is told of comments from now on; the relay has to read the config again.
    await writeFile(rig.configPath, configText(rig.database.url, rig.port));
    const all = { processed: 3, delivered: 3, suppressed: 0, already: 0 };
    const filters = ['--object', `post:${post}`, '--source', 'post_comment', '--since', '2h'];
    expect(await replay('--dry-run', ...filters)).toEqual(all);
    const refused = await run(['replay', '--config', rig.configPath, ...filters]);
    expect(refused).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('restart it') as string });

    rig.program.child.kill('SIGTERM');
    await rig.program.exit;
    program = startBelfry(['start', '--config', rig.configPath]);
    await until('ready', async () => (await fetch(`${rig.http}/readyz`).catch(() => null))?.status === 200);
    const raw = await Raw.session(rig, author);
    expect(await replay('--dry-run', ...filters)).toEqual(all);
    expect(await list()).toEqual([]);
    expect(await replay(...filters)).toEqual(all);
    const heard = [];
    for (const who of people) {
      expect(who).not.toBe('');
      heard.push((await raw.event('notification')).data);
    }
    expect(heard.map((data) => (data as { user_id: string }).user_id).sort()).toEqual([...people].sort());
    raw.end();
    expect(await list()).toHaveLength(3);

    const again = { processed: 3, delivered: 0, suppressed: 0, already: 3 };
    expect(await replay('--dry-run', ...filters)).toEqual(again);
    expect(await replay(...filters)).toEqual(again);
    expect(await replay('--limit', '2', ...filters)).toEqual({ ...again, processed: 2, already: 2 });
    expect(await replay('--until', '2h')).toEqual({ ...again, processed: 0, already: 0 });
    expect(await list()).toHaveLength(3);
  });

  it('explains each', async () => {
    expect(await explain(id, '--user', author)).toMatchObject({
      event: id,
      recipients: [
        {
          user_id: author,
          verdict: 'delivered',
          rule: null,
          notification_id: expect.stringMatching(/^\d+$/) as string,
          seq: expect.any(Number) as number,
          at: expect.stringMatching(/^\d{4}-.*Z$/) as string,
        },
      ],
    });
    // By the mapping as it was, who wrote it would have been told.
    expect(await explain(id)).toMatchObject({
      recipients: [{ user_id: author }, { verdict: 'suppressed', rule: 'self' }],
    });
    expect(await explain(id, '--user', '999')).toMatchObject({ event: id, recipients: [] });
    expect((await run(['explain', '999999', '--config', rig.configPath])).code).toBe(1);
    expect((await run(['explain', 'x', '--config', rig.configPath])).code).toBe(2);
  });

  it('also without a relay, and leaves an account', async () => {
    program?.child.kill('SIGTERM');
    await program?.exit;
    await rig.db.query('delete from belfry.notification_event where actor_id = $1', [people[0]]);
    // The newest is listed first, also where its number has more digits.
    await rig.db.query(`select setval(pg_get_serial_sequence('belfry.replay_job', 'id'), 99)`);
    expect(await replay('--object', `post:${post}`)).toEqual({ processed: 3, delivered: 1, suppressed: 0, already: 2 });
    const { stdout } = await run(['replay', '--list', '--json', '--config', rig.configPath]);
    const items = json(stdout)['items'] as Record<string, unknown>[];
    expect(items[0]).toMatchObject({
      state: 'done',
      mode: 'deliver',
      processed: 3,
      delivered: 1,
      filter: { object: `post:${post}` },
    });
    expect(items.at(-1)).toMatchObject({ state: 'failed' });
  });
});

it('a dead letter is tried again, or discarded with a reason', async () => {
  await rig.db.query(`insert into public.comments (user_id, post_id, content) values ($1, $2, 'dead')`, [
    people[1],
    post,
  ]);
  await rig.db.query(
    `insert into belfry.dead_event (event_id, source, op, new, event_at, error)
     select id, source, op, new, at, 'poison' from belfry.outbox order by id desc limit 1`,
  );
  await rig.db.query('update belfry.relay set seen = pg_current_snapshot()');
  const dead = (...args: string[]) => run(['dead-letter', ...args, '--config', rig.configPath]);
  const id = (await rig.db.query<{ id: string }>('select id::text from belfry.dead_letter')).rows[0]?.id ?? '';
  expect((await dead('retry')).code).toBe(2);
  expect(await dead('retry', '999999')).toMatchObject({ code: 1, stdout: '' });
  expect(await explain(id)).toMatchObject({ recipients: [{ user_id: author, verdict: 'dead' }] });
  const retried = await dead('retry', '--type', 'comment', '--json');
  expect(retried).toMatchObject({ code: 0, stderr: '' });
  expect(json(retried.stdout)).toEqual({ items: [{ id, dead: false, error: null }] });
  expect(await explain(id)).toMatchObject({ recipients: [{ user_id: author, verdict: 'delivered' }] });
  await rig.db.query(
    `insert into belfry.dead_event (event_id, source, op, event_at, error) values (1, 'x', 'created', now(), 'poison')`,
  );
  expect(await dead('discard', '1', '--reason', 'a test')).toMatchObject({ code: 0, stdout: 'discarded 1\n' });
  const { rows } = await rig.db.query('select event_id, reason, error from belfry.discarded_event');
  expect(rows).toEqual([{ event_id: '1', reason: 'a test', error: 'poison' }]);
});

it.each([[['--mode', 'other']], [['--rate', '0']], [['--since', 'yesterday']], [['--since', '1h', '--until', '2h']]])(
  'replay %j is wrong usage: exit 2',
  async (args) => {
    expect((await run(['replay', '--config', rig.configPath, ...args])).code).toBe(2);
  },
);
