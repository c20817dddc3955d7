/**
 * Schemas in the manner of ORMs and applications: what init makes of them, that migrate accepts it as it is, and that the ORM's own
 * writes lead to the notifications that people expect, through a relay that runs.
 *
 * test/schemas/<name>/: schema.sql, writes.sql (as the ORM would send it), expected.yaml (facts, answers, notifications) and belfry.yaml,
 * which init wrote; `vitest -u` writes it anew.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { parse } from 'yaml';
import { startApp } from '../../src/app.js';
import { createProgram } from '../../src/cli/program.js';
import { loadConfig } from '../../src/config.js';
import { PostgresInbox } from '../../src/inbox/inbox.js';
import { lookAt } from '../../src/init/look.js';
import { recognise } from '../../src/init/recognise.js';
import { writeConfig } from '../../src/init/write.js';
import { createLogger } from '../../src/log.js';
import { loadColumnTypes } from '../../src/schema/columns.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';
import { judge, unexpected, type Judged } from './facts.js';

interface Expected {
  readonly facts: readonly string[];
  readonly answers?: Readonly<Record<string, string>>;
  readonly notifications: Readonly<Record<string, readonly string[]>>;
  /** Texts that channels tell, and that they don't. */
  readonly channels?: { readonly shown: readonly string[]; readonly hidden: readonly string[] };
}

const root = path.join(import.meta.dirname, '../schemas');
const names = readdirSync(root).sort();
const folder = mkdtempSync(path.join(tmpdir(), 'belfry-init-'));
afterAll(() => rmSync(folder, { recursive: true }));

const read = (name: string, file: string): string => readFileSync(path.join(root, name, file), 'utf8');
const expectedOf = (name: string): Expected => parse(read(name, 'expected.yaml')) as Expected;

const judged: (Judged & { readonly schema: string })[] = [];

describe.each(names)('%s', (name) => {
  let database: TestDatabase;
  const expected = expectedOf(name);

  beforeAll(async () => {
    database = await createTestDatabase({ prepare: read(name, 'schema.sql') });
    vi.stubEnv('DATABASE_URL', database.url);
    vi.stubEnv('JWT_SECRET', testSecret);
  });

  afterAll(async () => {
    vi.unstubAllEnvs();
    await database.drop();
  });

  it('is recognised: never silently wrong', async () => {
    const draft = recognise(await lookAt(await database.client()));
    const results = expected.facts.map((fact) => judge(draft, fact));
    judged.push(...results.map((result) => ({ ...result, schema: name })));
    await expect(writeConfig(draft, { secret: null, command: 'belfry init' })).toMatchFileSnapshot(
      path.join(root, name, 'belfry.yaml'),
    );
    expect(results.filter(({ verdict }) => verdict === 'wrong')).toEqual([]);
    expect(unexpected(draft, expected.facts)).toEqual([]);
  });

  it('the config is accepted, and its writes become what people expect', async () => {
    const file = path.join(folder, `${name}.yaml`);
    const answers = Object.entries(expected.answers ?? {}).flatMap(([id, choice]) => ['--answer', `${id}=${choice}`]);
    await belfry('migrate', '--config', path.join(root, name, 'belfry.yaml'));
    if (answers.length > 0) {
      await belfry('init', '--config', file, ...answers);
      await belfry('migrate', '--config', file);
    } else writeFileSync(file, read(name, 'belfry.yaml'));

    const config = await loadConfig(file);
    let arrived = (_id: string): void => undefined;
    const app = await startApp(config, {
      role: 'relay',
      log: createLogger({ level: 'warn', name }),
      observer: { wantsTraces: true, batch: ({ traces }) => traces.forEach(({ id }) => arrived(id)) },
    });
    try {
      const client = await database.client();
      for (const statement of read(name, 'writes.sql').split(/;[ ]*\n/)) await client.query(statement);
      const processed = new Promise<void>((resolve) => {
        const seen = new Set<string>();
        let last: string | null = null;
        arrived = (id) => {
          seen.add(id);
          if (last !== null && seen.has(last)) resolve();
        };
        void client
          .query<{ id: string }>(`select belfry.notify('nobody', 'system', 'the end') as id`)
          .then(({ rows }) => {
            last = rows[0]?.id ?? null;
            arrived('');
          });
      });
      await processed;
      const inbox = new PostgresInbox(database.pool, config, await loadColumnTypes(database.pool, config));
      const { rows } = await client.query<{ user_id: string }>('select distinct user_id from belfry.notification');
      const heard: Record<string, string[]> = {};
      for (const { user_id: id } of rows) {
        const { items } = await inbox.list(id, { limit: 100, before: null, state: null });
        if (items.length > 0 && id !== 'nobody')
          heard[id] = items.map((item) => sentenceOf(item as Readonly<Record<string, unknown>>)).sort();
      }
      const wanted = Object.entries(expected.notifications).map(([id, list]) => [id, [...list].sort()]);
      expect(heard).toEqual(Object.fromEntries(wanted));
      const { rows: told } = await client.query<{ data: string }>('select data::text from belfry.channel_event');
      const log = told.map(({ data }) => data).join('\n');
      const { shown, hidden } = expected.channels ?? { shown: [], hidden: [] };
      expect([...shown, ...hidden].filter((text) => log.includes(text))).toEqual(shown);
    } finally {
      await app.stop();
    }
  });
});

/** The command itself, without what it tells people. */
async function belfry(...args: readonly string[]): Promise<void> {
  const quiet = vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
  const silent = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
  try {
    const program = await createProgram(args);
    await program.parseAsync(['node', 'belfry', ...args]);
  } finally {
    quiet.mockRestore();
    silent.mockRestore();
  }
}

/** `like by 3 2 on post 1` */
function sentenceOf(item: Readonly<Record<string, unknown>>): string {
  const { actors, object } = item['data'] as { actors: { id: string }[]; object?: { kind: string; id: string } };
  const by = actors.length === 0 ? '' : ` by ${actors.map(({ id }) => id).join(' ')}`;
  return `${String(item['type'])}${by}${object === undefined ? '' : ` on ${object.kind} ${object.id}`}`;
}

it('at least 90 of 100 facts are right, and none is silently wrong', () => {
  const right = judged.filter(({ verdict }) => verdict === 'right').length;
  const asked = judged.filter(({ verdict }) => verdict === 'asked');
  process.stdout.write(
    `belfry init: ${String(right)} of ${String(judged.length)} facts right over ${String(names.length)} schemas, ${String(asked.length)} asked about, ${String(judged.length - right - asked.length)} silently wrong\n` +
      asked.map(({ schema, fact }) => `  asked about, ${schema}: ${fact}\n`).join(''),
  );
  expect(names.length).toBeGreaterThanOrEqual(10);
  expect(judged.length).toBeGreaterThanOrEqual(100);
  expect(right / judged.length).toBeGreaterThanOrEqual(0.9);
});
