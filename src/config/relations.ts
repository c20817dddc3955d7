/** The sections about who does not want to hear of whom: blocks, mutes, muted threads. */

import * as z from 'zod';
import { column, table, text, word } from './fields.js';
import type { Path, Problems } from './problems.js';
import type { Sound } from './shape.js';
import type { RelationConfig, ThreadMutesConfig } from './types.js';
import { sqlProblem } from './values.js';

const when = (what: string) =>
  text(`SQL over the row: it is a ${what} while this holds, e.g. "kind = 'block'". Default: every row is.`).optional();

const until = column('When it ends, a time; null in the row: never.').optional();

export const blocks = z
  .strictObject({
    table: table('One row per block.'),
    from: column('Who blocks.'),
    to: column('Who is blocked.'),
    until,
    when: when('block'),
    direction: z
      .enum(['both', 'one'])
      .default('both')
      .describe('both: nothing passes in either direction. one: only what the blocked does is kept from who blocks.'),
  })
  .describe('Nothing crosses a block, in either direction.');

export const mutes = z
  .strictObject({
    table: table('One row per mute.'),
    from: column('Who mutes.'),
    to: column('Who is muted.'),
    until,
    when: when('mute'),
    direction: z
      .enum(['both', 'one'])
      .default('one')
      .describe('one: what the muted does does not notify who mutes. both: nor the other way.'),
  })
  .describe("A muted person's doings do not notify.");

export const threadMutes = z
  .strictObject({
    table: table('One row per muted thread.'),
    user: column('Who mutes.'),
    kind: word('kind', 'The kind of object that a thread is, e.g. post.'),
    id: column('The id of the object.'),
    until,
    when: when('mute'),
  })
  .describe('Threads of which a person wants to hear nothing.');

type RawRelation = z.output<typeof blocks>;
type RawThreadMutes = z.output<typeof threadMutes>;

export function checkRelation(raw: Sound<RawRelation>, section: 'blocks' | 'mutes', problems: Problems): void {
  checkCondition(raw.when, [section, 'when'], problems);
  if (raw.from !== undefined && raw.from === raw.to)
    problems.add([section, 'to'], `is the same column as from: ${raw.from}`);
}

export function checkThreadMutes(raw: Sound<RawThreadMutes>, problems: Problems): void {
  checkCondition(raw.when, ['threadMutes', 'when'], problems);
}

export function resolveRelation(raw: RawRelation | undefined): RelationConfig | null {
  return raw === undefined ? null : { ...raw, until: raw.until ?? null, when: raw.when ?? null };
}

export function resolveThreadMutes(raw: RawThreadMutes | undefined): ThreadMutesConfig | null {
  return raw === undefined ? null : { ...raw, until: raw.until ?? null, when: raw.when ?? null };
}

function checkCondition(sql: string | undefined, path: Path, problems: Problems): void {
  const problem = sql === undefined ? null : sqlProblem(sql, 'condition', []);
  if (problem !== null) problems.add(path, problem);
}
