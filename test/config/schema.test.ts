/** `belfry.schema.json` is what editors check with: it must be the one made from the code. `npm run schema` writes it anew. */

import { resolve } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { expect, it } from 'vitest';
import { jsonSchema } from '../../src/config/json-schema.js';

it('belfry.schema.json is up to date', async () => {
  const file = resolve('belfry.schema.json');
  const options = (await resolveConfig(file)) ?? {};
  await expect(await format(JSON.stringify(jsonSchema()), { ...options, parser: 'json' })).toMatchFileSnapshot(file);
});

it('lets references stand for scalars, and keys with a default be left out', () => {
  const schema = jsonSchema() as {
    required: string[];
    properties: Record<string, { properties: Record<string, unknown>; required?: string[] }>;
  };
  expect(schema.required).toEqual(['version', 'sources']);
  expect(schema.properties['server']?.required).toBeUndefined();
  expect(schema.properties['server']?.properties['port']).toMatchObject({
    default: 10_000,
    anyOf: [{ type: 'integer', minimum: 0, maximum: 65_535 }, { type: 'string' }],
  });
});
