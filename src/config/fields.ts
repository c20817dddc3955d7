/**
 * The kinds of values in the config file, as zod schemas with a message of their own.
 *
 * Numbers and booleans may also come as text, since `"${PORT}"` is text.
 */

import * as z from 'zod';
import { DURATION_PATTERN, TABLE_PATTERN } from './values.js';

// Bytes of a Postgres identifier; longer names would be cut silently.
const NAME_BYTES = 63;

export const text = (description: string) => z.string().min(1, 'is empty').describe(description);

export const column = (description: string) =>
  z
    .string()
    .min(1, 'is empty')
    .refine((name) => Buffer.byteLength(name) <= NAME_BYTES, `is longer than ${NAME_BYTES} bytes`)
    .describe(description);

export const table = (description: string) =>
  z
    .string()
    .regex(TABLE_PATTERN, 'is not a table name such as likes, public.likes or public."Likes"')
    .describe(description);

export const word = (what: string, description: string) =>
  z
    .string()
    .regex(/^[A-Za-z][A-Za-z0-9_-]{0,47}$/, `is not a ${what}: a letter, then at most 47 letters, digits, _ or -`)
    .describe(description);

export const integer = (min: number, max: number, fallback: number, description: string) =>
  z
    .preprocess(
      (value) => (typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value),
      z.int().min(min).max(max),
    )
    .default(fallback)
    .describe(description);

export const flag = (fallback: boolean, description: string) =>
  z
    .preprocess((value) => (value === 'true' ? true : value === 'false' ? false : value), z.boolean())
    .default(fallback)
    .describe(description);

const NOT_A_DURATION = 'is not a duration such as 500ms, 5s, 10m, 12h or 7d';

export const duration = (fallback: string, description: string) =>
  z.string(NOT_A_DURATION).regex(DURATION_PATTERN, NOT_A_DURATION).default(fallback).describe(description);

export const access = (description: string, fallback: string) => text(description).default(fallback);

export const percent = (fallback: number, description: string) =>
  z
    .preprocess(
      (value) => (typeof value === 'string' && /^\d+(\.\d+)?$/.test(value) ? Number(value) : value),
      z.number().min(0).max(100),
    )
    .default(fallback)
    .describe(description);
