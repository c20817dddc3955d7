/** The JSON Schema of the config file, for editors; committed as `belfry.schema.json` (`npm run schema` writes it anew). */

import * as z from 'zod';
import { configSchema } from './schema.js';

// What an editor must accept in place of a number, a boolean or one of a few words: the file is checked after replacing it.
const REFERENCE = { type: 'string', pattern: '\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-.*)?\\}' } as const;

/** A draft 2020-12 schema; keys with a default may be left out, and `${NAME}` may stand for any scalar. */
export function jsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(configSchema, {
    io: 'output',
    override: ({ zodSchema, jsonSchema: json }) => {
      const { def } = zodSchema._zod;
      if (def.type !== 'object') return;
      const { shape } = def as z.core.$ZodObjectDef;
      const required = Object.keys(shape).filter((key) => shape[key]?._zod.optin === undefined);
      if (required.length > 0) json.required = required;
      else delete json.required;
    },
  });
  // What DATABASE_URL and JWT_SECRET bring need not stand in the file.
  const required = (schema.required ?? []).filter((key) => key !== 'database' && key !== 'auth');
  return { title: 'Belfry', ...withReferences({ ...schema, required }) };
}

function withReferences(schema: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(schema).map(([key, value]): [string, unknown] => {
    if (key === 'properties') return [key, mapValues(value as Record<string, Record<string, unknown>>, referenceable)];
    if (key === 'additionalProperties' && typeof value === 'object')
      return [key, referenceable(value as Record<string, unknown>)];
    if (key === 'items') return [key, referenceable(value as Record<string, unknown>)];
    if (key === 'anyOf') return [key, (value as Record<string, unknown>[]).map(withReferences)];
    return [key, value];
  });
  return Object.fromEntries(entries);
}

function referenceable(schema: Record<string, unknown>): Record<string, unknown> {
  const isScalar = ['integer', 'number', 'boolean', 'string'].includes(String(schema['type']));
  const isRestricted = schema['type'] !== 'string' || 'pattern' in schema || 'enum' in schema;
  if (!isScalar || !isRestricted) return withReferences(schema);
  const { description, default: fallback, ...rest } = schema;
  return {
    ...(description === undefined ? {} : { description }),
    ...(fallback === undefined ? {} : { default: fallback }),
    anyOf: [rest, REFERENCE],
  };
}

function mapValues<Value, Result>(
  record: Record<string, Value>,
  map: (value: Value) => Result,
): Record<string, Result> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]));
}
