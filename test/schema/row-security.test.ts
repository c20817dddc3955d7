/** Row-level security on the application's tables: who runs Belfry sees every row that decides who may hear what, or does not run. */

import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startApp } from '../../src/app.js';
import { installCapture } from '../../src/capture/install.js';
import { parseConfig } from '../../src/config.js';
import type { Config } from '../../src/config.js';
import { diagnose } from '../../src/doctor/doctor.js';
import { seedCounters } from '../../src/inbox/seed.js';
import { createMetrics } from '../../src/metrics.js';
import { connect } from '../../src/postgres/connect.js';
import { Drift, TablesChanged } from '../../src/relay/upkeep/drift.js';
import { misfits, Told } from '../../src/relay/upkeep/misfits.js';
import { PrivacyLoader } from '../../src/relay/facts/privacy-facts.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { roleStatements, runRoleStatements } from '../../src/schema/roles.js';
import { hiddenRows } from '../../src/schema/row-security.js';
import { createTestDatabase, withUser } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { addPost, addUsers, like, socialConfig, socialSql } from '../support/social.js';

const user = `belfry_test_rows_${randomBytes(4).toString('hex')}`;
const forRelay = `create policy belfry on public.blocks for select to ${user} using (true)`;

let database: TestDatabase;
let owner: pg.Client;
let config: Config;
const log = pino({ level: 'silent' });

beforeAll(async () => {
  database = await createTestDatabase({ prepare: socialSql });
  owner = await database.client();
  config = parseConfig(socialConfig(withUser(database.url, user, 'x')), {}, { path: 'test.yaml' });
  await installCapture(owner, config);
  await seedCounters(owner, config, { info: () => undefined });
  await runRoleStatements(owner, await roleStatements(owner, config));
  await owner.query(`create role ${user} login password 'x' in role belfry_relay`);
});

afterEach(async () => {
  await owner.query(`
    drop policy if exists app on public.blocks; drop policy if exists narrow on public.blocks; drop policy if exists belfry on public.blocks;
    alter table public.blocks disable row level security, no force row level security`);
});

afterAll(async () => {
  await database.drop();
  await owner.end().catch(() => undefined);
  const other = await createTestDatabase({ template: 'empty' });
  await other.pool.query(`drop role ${user}`);
  await other.drop();
});

/** Tables of which the user does not see every row. */
async function hidden(): Promise<string[]> {
  const client = await connect(config.database.url, { applicationName: 'belfry-test' });
  try {
    return (await hiddenRows(client, config)).map(({ table }) => table);
  } finally {
    await client.end();
  }
}

describe('rows are hidden', () => {
  it.each([
    ['where no policy is for the user', ''],
    ['by what the application asks of itself', 'create policy app on public.blocks using (blocker_id = 7)'],
    ['by a policy for writing alone', 'create policy app on public.blocks for insert with check (true)'],
    [
      'by a restrictive one',
      `${forRelay}; create policy narrow on public.blocks as restrictive using (blocker_id = 7)`,
    ],
  ])('%s', async (_, policies) => {
    expect(await hidden()).toEqual([]);
    await owner.query(`alter table public.blocks enable row level security; ${policies}`);
    expect(await hidden()).toEqual(['public.blocks']);
  });

  it.each([
    ['where everybody sees them', 'create policy app on public.blocks for select using (true)'],
    ['to whom a policy was made for', forRelay],
    [
      'to belfry_relay, whatever it is to see',
      `create policy belfry on public.blocks to belfry_relay using (blocker_id <> 7)`,
    ],
  ])('not %s', async (_, policies) => {
    await owner.query(`alter table public.blocks enable row level security; ${policies}`);
    expect(await hidden()).toEqual([]);
  });
});

describe('a relay that does not see who blocks whom', () => {
  it('does not start, and says what to run; doctor does too; that done, it starts and heeds the block', async () => {
    await owner.query('alter table public.blocks enable row level security');
    const cure = `create policy belfry on public.blocks for select to ${user} using (true);`;
    await expect(startApp(config, { role: 'all', log })).rejects.toMatchObject({
      code: 'database_denied',
      message: expect.stringContaining(cure) as string,
    });
    const { checks } = await diagnose(config.database.url, config);
    expect(checks.filter(({ name }) => name === 'rights')).toEqual([
      {
        name: 'rights',
        level: 'fail',
        detail: expect.stringContaining('hides rows of public.blocks') as string,
        cure: expect.stringContaining(cure) as string,
      },
    ]);
    await owner.query(cure);
    const app = await startApp(config, { role: 'all', log });
    try {
      const [ada = '', bo = ''] = await addUsers(database.pool, 'Ada', 'Bo');
      await owner.query('insert into blocks (blocker_id, blocked_id) values ($1, $2)', [ada, bo]);
      await like(database.pool, bo, await addPost(database.pool, ada));
      await expect
        .poll(async () => (await owner.query('select rule from belfry.verdict')).rows, { timeout: 25_000 })
        .toEqual([{ rule: 'blocked' }]);
    } finally {
      await app.stop();
    }
  });

  it('ends its term where that was switched on meanwhile, and can begin no other, which it says once', async () => {
    const facts = await connect(config.database.url, { applicationName: 'belfry-test' });
    try {
      const told = new Told();
      const { captureProblems } = createMetrics().relay;
      const drift = new Drift({ config, log, metrics: { captureProblems }, facts, told, repaired: () => undefined });
      await drift.check();
      await owner.query('alter table public.blocks enable row level security');
      await expect(drift.check()).rejects.toThrow(TablesChanged);
      const error = await PrivacyLoader.create(facts, config, await loadColumnTypes(facts, config)).catch(
        (thrown: unknown) => thrown,
      );
      const problems = await misfits(error, config);
      expect(problems).toEqual([expect.stringContaining('Row-level security hides rows of public.blocks')]);
      expect([told.isNews('term', problems), told.isNews('term', problems)]).toEqual([true, false]);
    } finally {
      await facts.end();
    }
  });
});
