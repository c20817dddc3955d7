/** What goes to Postgres as text comes back as it was, whatever stands in it. */

import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { composites, textArray } from '../../src/postgres/arrays.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';

let database: TestDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await createTestDatabase();
  client = await database.client();
  await client.query('create type thing as (a text, b bigint, c boolean, d text[], e float8)');
});

afterAll(async () => {
  await database.drop();
});

/** Every mark that the formats know, and any character that Postgres can store. */
const text = fc.oneof(
  fc.string({ unit: 'binary' }).filter((value) => !value.includes('\0') && Buffer.from(value).toString() === value),
  fc.string({ unit: fc.constantFrom('"', '\\', ',', '(', ')', '{', '}', ' ', '\n', 'a', "'", 'é', '🔔') }),
  fc.constantFrom('', 'null', 'NULL', 'Null', '["17", "42"]', '{}', '()', ' '),
);

describe('textArray', () => {
  it('is read as what it was made of', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(text), { maxLength: 8 }), async (list) => {
        const { rows } = await client.query<{ list: string }>('select to_json($1::text[]) as list', [textArray(list)]);
        expect(rows[0]?.list).toEqual(list);
      }),
      { numRuns: 300 },
    );
  });
});

describe('composites', () => {
  const row = fc.record({
    a: fc.option(text),
    b: fc.option(fc.maxSafeInteger()),
    c: fc.option(fc.boolean()),
    d: fc.option(fc.array(text, { maxLength: 4 })),
    e: fc.option(fc.double({ noNaN: true, noDefaultInfinity: true })),
  });

  it('is read as what it was made of', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 6 }), async (list) => {
        const sent = composites(list, ({ a, b, c, d, e }) => [a, b, c, d, e]);
        const { rows } = await client.query<{ list: string }>(
          `select json_agg(json_build_object('a', a, 'b', b, 'c', c, 'd', d, 'e', e)) as list from unnest($1::thing[])`,
          [sent],
        );
        expect(rows[0]?.list).toEqual(list.map((one) => ({ ...one, e: one.e === 0 ? 0 : one.e })));
      }),
      { numRuns: 300 },
    );
  });

  it('of no rows is null: nothing to parse', () => {
    expect(composites([], () => [])).toBeNull();
  });
});
