/** CONTRACT §1: the command line, as a process. */

import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import jwt from 'jsonwebtoken';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../support/ports.js';
import { createTestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import { applicationSql, configText, http, Raw, run, secret, startRig, token, until, type Rig } from './rig.js';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
});
afterAll(() => rig.stop());

const commands = [
  'demo',
  'init',
  'doctor',
  'migrate',
  'uninstall',
  'start',
  'status',
  'token',
  'tail',
  'outbox',
  'dead-letter',
  'replay',
  'explain',
  'pause',
  'resume',
];

const json = (text: string) => JSON.parse(text) as Record<string, unknown>;
const config = () => ['--config', rig.configPath];

describe('every command', () => {
  it.each(commands)('%s --help: exit 0, and names --config', async (command) => {
    const { code, stdout } = await run([command, '--help']);
    expect(code).toBe(0);
    // Those that have commands of their own take it there.
    const all = stdout.includes('--config') ? stdout : (await run([command, 'list', '--help'])).stdout;
    expect(all).toContain('--config');
  });

  it('stands in the help of the whole', async () => {
    const { stdout } = await run(['--help']);
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^  ${command}\\b`, 'm'));
  });

  it.each([[['nonsense']], [['status', '--nonsense']], [['token']], [['start', '--role', 'king']], [['tail']]])(
    '%j is wrong usage: exit 2, told on stderr',
    async (args) => {
      const { code, stdout, stderr } = await run([...args, ...(args[0] === 'nonsense' ? [] : config())]);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).not.toBe('');
    },
  );

  it('tells all problems of a config at once, each with its path: exit 2', async () => {
    const file = path.join(rig.folder, 'five.yaml');
    await writeFile(
      file,
      `version: 1
database: { url: "postgres://x@127.0.0.1/x", wakeup: maybe }
server: { port: 99999 }
auth: { secret: "0123456789012345678901234567890123456789", algorithms: [none] }
colour: red
sources:
  - { name: a, type: like, table: public.likes, key: [id], capture: sometimes }
`,
    );
    const { code, stderr } = await run(['start', '--config', file]);
    expect(code).toBe(2);
    for (const where of ['database.wakeup', 'server.port', 'auth.algorithms', 'colour', 'capture'])
      expect(stderr).toContain(where);
  });

  it('tells a missing variable of the config: exit 2', async () => {
    const file = path.join(rig.folder, 'variable.yaml');
    await writeFile(file, configText('${NOT_THERE}', 1));
    const { code, stderr } = await run(['status', '--config', file]);
    expect(code).toBe(2);
    expect(stderr).toContain('NOT_THERE');
  });

  it('tells in one line that there is no database: exit 1', async () => {
    const file = path.join(rig.folder, 'nowhere.yaml');
    await writeFile(file, configText(`postgres://nobody@127.0.0.1:${await freePort()}/nothing`, 1));
    const { code, stderr } = await run(['migrate', '--config', file]);
    expect(code).toBe(1);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('start', () => {
  it('writes one line of JSON per log entry on stdout', () => {
    const lines = rig.program.stdout.trim().split('\n');
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(json(line)).toBeTypeOf('object');
  });

  it.each(['relay', 'gateway'])('broker memory with role %s: exit 2', async (role) => {
    expect((await run(['start', '--role', role, ...config()])).code).toBe(2);
  });

  it('is ready within 5 s, and a second one stands by', async () => {
    const port = await freePort();
    const began = Date.now();
    const second = startBelfry(['start', ...config()], { env: { PORT: String(port) } });
    try {
      await until(
        'ready',
        async () => (await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => null))?.status === 200,
      );
      // The machine of the tests may be busy; the contract's 5 s count from the process being there.
      expect(Date.now() - began).toBeLessThan(10_000);
      second.child.kill('SIGTERM');
      expect((await second.exit).code).toBe(0);
    } finally {
      await second.kill();
    }
  }, 40_000);
});

describe('migrate', () => {
  it('--dry-run prints SQL and changes nothing; migrate twice does no harm; rows from before notify nobody, but count', async () => {
    const database = await createTestDatabase({ template: 'empty', prepare: applicationSql });
    try {
      const file = path.join(rig.folder, 'fresh.yaml');
      const port = await freePort();
      await writeFile(file, configText(database.url, port));
      const schema = async () =>
        (
          await database.pool.query<{ n: number }>(
            `select count(*)::int as n from pg_namespace where nspname = 'belfry'`,
          )
        ).rows[0]?.n;
      const dry = await run(['migrate', '--dry-run', '--config', file]);
      expect(dry.code).toBe(0);
      expect(dry.stdout).toMatch(/create (table|schema)/i);
      expect(await schema()).toBe(0);

      await database.pool.query(`
        insert into public.users (full_name) values ('Grace'), ('Ada');
        insert into public.posts (user_id) values (1);
        insert into public.likes values (2, 1)`);
      expect((await run(['migrate', '--config', file])).code).toBe(0);
      expect((await run(['migrate', '--config', file])).code).toBe(0);
      expect(await schema()).toBe(1);

      const program = startBelfry(['start', '--config', file]);
      try {
        const here = { ...rig, port, ws: `ws://127.0.0.1:${port}/ws`, http: `http://127.0.0.1:${port}` };
        await until('ready', async () => (await fetch(`${here.http}/readyz`).catch(() => null))?.status === 200);
        const raw = await Raw.session(here, '1');
        expect(raw.auth.ok).toMatchObject({ unseen: 0, seq: 0 });
        const { ok } = await raw.ask({ op: 'subscribe', channel: 'post:1' });
        expect(ok?.['state']).toEqual({ likes_count: 1, comments_count: 0 });
        raw.end();
        program.child.kill('SIGTERM');
        await program.exit;
      } finally {
        await program.kill();
      }

      expect((await run(['uninstall', '--keep-data', '--yes', '--config', file])).code).toBe(0);
      expect(await schema()).toBe(1);
      const triggers = await database.pool.query(
        `select 1 from pg_trigger where tgrelid = 'public.likes'::regclass and not tgisinternal`,
      );
      expect(triggers.rowCount).toBe(0);
      expect((await run(['uninstall', '--yes', '--config', file])).code).toBe(0);
      expect(await schema()).toBe(0);
    } finally {
      await database.drop();
    }
  }, 60_000);

  it('comments every table and column of schema belfry', async () => {
    const { rows } = await rig.db.query(`
      select c.relname, a.attname
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and (a.attnum > 0 or a.attnum is null) and not a.attisdropped
       where c.relnamespace = 'belfry'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
         and (col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)`);
    expect(rows).toEqual([]);
  });
});

describe('status', () => {
  it('--json is one document', async () => {
    const { code, stdout } = await run(['status', '--json', ...config()]);
    expect(code).toBe(0);
    expect(json(stdout)).toMatchObject({
      leader: expect.anything() as unknown,
      lag_events: expect.any(Number) as number,
      lag_seconds: expect.any(Number) as number,
      paused: false,
      triggers: expect.anything() as unknown,
      connections: expect.any(Number) as number,
    });
  });

  it('counts the positions of inboxes among what inboxes use', async () => {
    const inbox = async (): Promise<number> =>
      (json((await run(['status', '--json', ...config()])).stdout)['disk'] as { inbox: number }).inbox;
    const before = await inbox();
    await rig.db.query(`insert into belfry.stream_position select 'nobody', n, n from generate_series(1, 20000) n`);
    expect((await inbox()) - before).toBeGreaterThan(1_000_000);
    await rig.db.query(`delete from belfry.stream_position where user_id = 'nobody'`);
  });

  it('exit 0 also when nothing runs', async () => {
    const database = await createTestDatabase({ template: 'empty', prepare: applicationSql });
    const file = path.join(rig.folder, 'idle.yaml');
    await writeFile(file, configText(database.url, await freePort()));
    const { code, stdout } = await run(['status', '--json', '--config', file]);
    expect(code).toBe(0);
    expect(json(stdout)).toMatchObject({ leader: null });
    await database.drop();
  });
});

describe('pause and resume', () => {
  it('stop the relay from reading, and let it go on; writers are untouched', async () => {
    const [author, ada] = [await rig.user('Grace'), await rig.user('Ada')];
    const post = await rig.post(author);
    const raw = await Raw.session(rig, author);
    expect((await run(['pause', ...config()])).code).toBe(0);
    expect(json((await run(['status', '--json', ...config()])).stdout)).toMatchObject({ paused: true });
    await rig.db.query('insert into public.likes values ($1, $2)', [ada, post]);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(await raw.quiet()).toEqual([]);
    expect(json((await run(['status', '--json', ...config()])).stdout)['lag_events']).toBe(1);
    expect((await run(['resume', ...config()])).code).toBe(0);
    expect((await raw.event('notification')).data).toMatchObject({ type: 'like', user_id: ada });
    raw.end();
  }, 40_000);
});

describe('times', () => {
  it.each(['2h', '2h ago', '2026-01-15T12:00:00Z'])('%s', async (time) => {
    const { code, stdout } = await run(['outbox', 'list', '--since', time, '--json', ...config()]);
    expect(code).toBe(0);
    expect(json(stdout)['items']).toBeInstanceOf(Array);
  });
});

describe('token and tail', () => {
  it('token signs with the configured secret and prints it alone', async () => {
    const { code, stdout } = await run(['token', '--sub', '42', '--ttl', '10m', '--claim', 'role=admin', ...config()]);
    expect(code).toBe(0);
    expect(stdout.trim().split('\n')).toHaveLength(1);
    const claims = jwt.verify(stdout.trim(), secret) as jwt.JwtPayload;
    expect(claims).toMatchObject({ sub: '42', role: 'admin' });
    expect((claims.exp ?? 0) - Date.now() / 1000).toBeGreaterThan(580);
    expect((claims.exp ?? 0) - Date.now() / 1000).toBeLessThan(601);
  });

  it('tail prints one JSON line per frame, of channels too, and resumes', async () => {
    const [author, ada] = [await rig.user('Grace'), await rig.user('Ada')];
    const post = await rig.post(author);
    const tail = startBelfry(['tail', '--token', token(author), '--url', rig.ws, '--channel', `post:${post}`]);
    let epoch = '';
    try {
      await tail.waitFor(/"likes_count"/);
      await rig.db.query('insert into public.likes values ($1, $2)', [ada, post]);
      await tail.waitFor(/"event":"notification"/);
      await tail.waitFor(/"event":"like_update"/);
      const frames = tail.stdout.trim().split('\n').map(json);
      epoch = String((frames[0]?.['ok'] as { epoch: unknown }).epoch);
      tail.child.kill('SIGINT');
      expect((await tail.exit).code).toBe(0);
    } finally {
      await tail.kill();
    }
    const resumed = ['--since', '0', '--epoch', epoch, '--json'];
    const again = startBelfry(['tail', '--token', token(author), '--url', rig.ws, ...resumed]);
    try {
      await again.waitFor(/"event":"synced"/);
      const frames = again.stdout.trim().split('\n').map(json);
      expect(frames.map(({ event }) => event)).toEqual([undefined, 'notification', 'synced']);
    } finally {
      await again.kill();
    }
  }, 40_000);
});

describe('outbox', () => {
  it('list and show, by filters', async () => {
    const [author, ada] = [await rig.user('Grace'), await rig.user('Ada')];
    const post = await rig.post(author);
    await rig.db.query('insert into public.likes values ($1, $2)', [ada, post]);
    await rig.db.query(`insert into public.comments (user_id, post_id, content) values ($1, $2, 'text')`, [ada, post]);
    const list = async (...filters: string[]) =>
      json((await run(['outbox', 'list', '--json', ...filters, ...config()])).stdout)['items'] as Record<
        string,
        unknown
      >[];
    const all = await list('--user', ada);
    expect(all).toHaveLength(2);
    const [like] = await list('--user', ada, '--source', 'post_like');
    expect(like).toEqual({
      id: expect.stringMatching(/^\d+$/) as string,
      at: expect.stringMatching(/^\d{4}-.*Z$/) as string,
      source: 'post_like',
      type: 'like',
      op: 'created',
      actor_id: ada,
      object: { kind: 'post', id: post },
      new: { user_id: expect.anything() as unknown, post_id: expect.anything() as unknown },
      old: null,
    });
    // As recipient, too; and by object, type, time and number.
    expect(await list('--user', author)).toHaveLength(2);
    expect(await list('--user', ada, '--type', 'comment')).toHaveLength(1);
    expect(await list('--object', `post:${post}`)).toHaveLength(2);
    expect(await list('--user', ada, '--limit', '1')).toHaveLength(1);
    expect(await list('--user', ada, '--since', '2h')).toHaveLength(2);
    expect(await list('--user', ada, '--until', '2h')).toHaveLength(0);
    expect(await list('--user', ada, '--since', new Date(Date.now() + 60_000).toISOString())).toHaveLength(0);
    const shown = await run(['outbox', 'show', String(like?.['id']), '--json', ...config()]);
    expect(json(shown.stdout)).toEqual(like);
    expect((await run(['outbox', 'show', '999999999', '--json', ...config()])).code).toBe(1);
  }, 60_000);
});

describe('dead-letter', () => {
  it('list is a document with items', async () => {
    const { code, stdout } = await run(['dead-letter', 'list', '--json', ...config()]);
    expect(code).toBe(0);
    expect(json(stdout)).toEqual({ items: [] });
  });
});

describe('views and roles of §3', () => {
  it('belfry.lag, belfry.trigger_health and belfry.dead_letter can be read', async () => {
    const { rows } = await rig.db.query('select events, seconds from belfry.lag');
    expect(rows).toHaveLength(1);
    expect((await rig.db.query('select * from belfry.trigger_health')).rowCount).toBeGreaterThan(0);
    await rig.db.query('select * from belfry.dead_letter');
  });

  it('a member of belfry_app may call the functions and nothing else', async () => {
    const client = await rig.database.client();
    const role = `contract_app_${Date.now()}`;
    await client.query(`create role ${role} in role belfry_app`);
    try {
      await client.query(`set role ${role}`);
      const { rows } = await client.query<{ id: string }>(`select belfry.broadcast('lobby', 'hello', '{}') as id`);
      expect(rows[0]?.id).toMatch(/^\d+$/);
      await expect(client.query('select * from belfry.outbox')).rejects.toMatchObject({ code: '42501' });
      await expect(client.query('delete from belfry.notification')).rejects.toMatchObject({ code: '42501' });
    } finally {
      await client.query('reset role');
      await client.query(`drop role ${role}`);
    }
  });

  it('set local belfry.capture = counters counts, and notifies nobody', async () => {
    const [author, ada] = [await rig.user('Grace'), await rig.user('Ada')];
    const post = await rig.post(author);
    const raw = await Raw.session(rig, author);
    await raw.ask({ op: 'subscribe', channel: `post:${post}` });
    const client = await rig.database.client();
    await client.query('begin');
    await client.query(`set local belfry.capture = 'counters'`);
    await client.query('insert into public.likes values ($1, $2)', [ada, post]);
    await client.query('commit');
    expect((await raw.event('like_update')).data).toMatchObject({ likes_count: 1 });
    expect((await http(rig, 'GET', '/api/notifications', { as: author })).body).toMatchObject({ items: [], unseen: 0 });
    raw.end();
  });
});
