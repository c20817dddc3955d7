/**
 * The shape of the file, section by section and key by key, so that what is sound goes on to the checks of what is seen together: one
 * wrong value hides no other problem.
 */

import * as z from 'zod';
import { fieldOf } from './environment.js';
import { nameOf } from './problems.js';
import type { Problems } from './problems.js';
import { configSchema } from './schema.js';
import type { RawConfig } from './schema.js';

/** A mapping of the file without those of its keys, and of the elements of its lists, whose value is wrong. */
export type Sound<Value> = Value extends object
  ? { readonly [Key in keyof Value]?: SoundList<Value[Key]> | undefined }
  : Value;

type SoundList<Value> = Value extends readonly (infer Element)[] ? readonly (Element | undefined)[] : Value;

type ByName = 'channels' | 'aggregation';

/** What is sound in the file. What is missing here either is so there, or was wrong and is told: `Problems.tells`. */
export type Sections = {
  readonly [Key in Exclude<keyof RawConfig, 'sources' | ByName>]?: Sound<RawConfig[Key]> | undefined;
} & {
  readonly [Key in ByName]?: Readonly<Record<string, Sound<RawConfig[Key][string]> | undefined>> | undefined;
} & { readonly sources?: readonly (Sound<RawConfig['sources'][number]> | undefined)[] | undefined };

export interface Shape {
  /** Null when something was wrong. */
  readonly whole: RawConfig | null;
  readonly sound: Sections;
}

export function checkShape(data: unknown, problems: Problems): Shape {
  const mapping = mappingOf(data);
  if (mapping === null) {
    const instead = data === null || data === undefined ? '' : `, not ${nameOf(data)}`;
    problems.add([], `must be a mapping of keys that begins with version: 1${instead}`);
    // Of something else nobody knows what is missing in it: the environment may supply it.
    if (instead !== '') return { whole: null, sound: {} };
  }
  const unknown = Object.keys(mapping ?? {}).filter((key) => !Object.hasOwn(configSchema.shape, key));
  for (const key of unknown) problems.add([key], 'is not a known key');
  let isWhole = mapping !== null && unknown.length === 0;
  const sections: Record<string, unknown> = {};
  for (const [key, schema] of Object.entries(configSchema.shape)) {
    const value = fieldOf(mapping, key) ?? undefined;
    const { data: sound, error } = schema.safeParse(value);
    sections[key] = error === undefined ? sound : soundIn(schema, value);
    if (error !== undefined) problems.addIssues([key], error.issues, value);
    isWhole &&= error === undefined;
  }
  return { whole: isWhole ? (sections as RawConfig) : null, sound: sections };
}

/** Of what is inside a mapping only lists are taken apart. Undefined where nothing is sound. */
function soundIn(schema: z.core.$ZodType, value: unknown, inMapping = false): unknown {
  const { data, success } = z.safeParse(schema, value);
  if (success) return data;
  const inner = unwrapped(schema);
  if (inner instanceof z.ZodArray)
    return Array.isArray(value) ? value.map((one) => soundIn(inner.element, one, inMapping)) : undefined;
  const mapping = mappingOf(value);
  if (inMapping || mapping === null) return undefined;
  if (inner instanceof z.ZodRecord) return mapped(mapping, (one) => soundIn(inner.valueType, one));
  if (inner instanceof z.ZodObject)
    return mapped(inner.shape, (field: z.core.$ZodType, key) => soundIn(field, fieldOf(mapping, key), true));
  return undefined;
}

/** Without what is around it (optional, a default); of several forms the one that is a mapping. */
function unwrapped(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault)
    return unwrapped(schema.unwrap());
  if (schema instanceof z.ZodUnion) return schema.options.find((option) => option instanceof z.ZodObject) ?? schema;
  return schema;
}

function mappingOf(value: unknown): Readonly<Record<string, unknown>> | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : null;
}

function mapped<From>(
  mapping: Readonly<Record<string, From>>,
  to: (value: From, key: string) => unknown,
): Record<string, unknown> {
  return Object.fromEntries(Object.entries(mapping).map(([key, value]) => [key, to(value, key)]));
}
