/** Replays where no relay runs: what goes wrong ends the command and is left to nobody else, and its output stays one document. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { installCapture } from '../../src/capture/install.js';
import { loadConfig } from '../../src/config.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { startBelfry } from '../support/program.js';
import type { Program, ProgramOptions } from '../support/program.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

// Every step is a process of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000 });

const folder = mkdtempSync(join(tmpdir(), 'belfry-replay-'));
const sound = join(folder, 'belfry.yaml');
let database: TestDatabase;
const running: Program[] = [];

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  writeFileSync(sound, socialConfig(database.url));
  await installCapture(await database.client(), await loadConfig(sound, {}));
});
afterAll(async () => {
  await database.drop();
  rmSync(folder, { recursive: true });
});

// A like that a relay has read and told to nobody.
beforeEach(async () => {
  const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
  await database.pool.query('delete from belfry.replay_job; truncate belfry.outbox');
  await like(database.pool, bo, await addPost(database.pool, ada));
  await database.pool.query('update belfry.relay set seen = pg_current_snapshot()');
});
afterEach(async () => {
  for (const program of running.splice(0)) await program.kill();
  await database.pool.query('drop trigger if exists failing on belfry.notification');
});

async function run(
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<{ code: number | null; out: string; err: string }> {
  const program = startBelfry(args, { cwd: folder, ...options });
  running.push(program);
  const { code } = await program.exit;
  return { code, out: program.stdout, err: program.stderr };
}

const states = async (): Promise<string[]> =>
  (await database.pool.query<{ state: string }>('select state from belfry.replay_job order by id')).rows.map(
    ({ state }) => state,
  );

/** Storing a notification fails with this SQLSTATE, the first time or always. */
async function failWith(sqlstate: string, often: 'once' | 'always'): Promise<void> {
  await database.pool.query(`
    create sequence if not exists attempts;
    select setval('attempts', 1, false);
    create or replace function failing() returns trigger language plpgsql as $$ begin
      if nextval('attempts') = 1 or ${String(often === 'always')} then raise 'it fails' using errcode = '${sqlstate}'; end if;
      return new;
    end $$;
    create trigger failing before insert on belfry.notification for each row execute function failing()`);
}

const delivered = { processed: 1, delivered: 1, suppressed: 0, already: 0 };

describe('what goes wrong', () => {
  it('with storing, and is no event’s fault, ends it; it goes on where it was when somebody says so, and not before', async () => {
    await failWith('53100', 'always');
    const failed = await run(['replay', '--json']);
    expect(failed).toMatchObject({ code: 1, out: '' });
    const id = /^belfry: it fails; then belfry replay --resume (\d+) goes on\.\n$/.exec(failed.err)?.[1] ?? failed.err;
    expect(await states()).toEqual(['stopped']);
    await database.pool.query('drop trigger failing on belfry.notification');
    const resumed = await run(['replay', '--json', '--resume', id]);
    expect(resumed).toMatchObject({ code: 0, err: '' });
    expect(JSON.parse(resumed.out)).toEqual(delivered);
  });

  it('with storing for once, as a deadlock does, is tried again', async () => {
    await failWith('40P01', 'once');
    const { code, out, err } = await run(['replay', '--json']);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(JSON.parse(out)).toEqual(delivered);
  });

  it('before it begins leaves nothing for the next relay to do unasked', async () => {
    const config = join(folder, 'broker.yaml');
    writeFileSync(config, socialConfig(database.url, 'broker: redis://127.0.0.1:1'));
    const { code, out, err } = await run(['replay', '--json', '--config', config]);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(
      /^belfry: Redis could not be reached.* REDIS_URL; then belfry replay --resume \d+ goes on\.\n$/,
    );
    expect(await states()).toEqual(['stopped']);
  });

  it('with a relay that is paused, likewise', async () => {
    await database.pool.query('update belfry.relay set paused = true');
    const { code, err } = await run(['replay', '--json']);
    await database.pool.query('update belfry.relay set paused = false');
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(
        /^belfry: The relay is paused: belfry resume; then belfry replay --resume \d+ goes on\.\n$/,
      ) as string,
    });
    expect(await states()).toEqual(['stopped']);
  });
});

it('LOG_LEVEL leaves stdout to the one document', async () => {
  const { code, out, err } = await run(['replay', '--json'], { env: { LOG_LEVEL: 'info' } });
  expect(code).toBe(0);
  expect(JSON.parse(out)).toEqual(delivered);
  expect(err).toContain('"msg":"replay begins"');
});
