/** What a row with two people becomes: a source of events, or what blocks and mutes are read from. Pure. */

import { sqlName, tableText, type Table } from './database.js';
import { every, holdingCondition, liveCondition } from './conditions.js';
import type { Context } from './context.js';
import type { Direction } from './directions.js';
import type { Because, PairDraft, SourceDraft } from './draft.js';
import type { Found } from './likes.js';
import { personSpec, type PersonColumn } from './people.js';

export interface FoundPairs extends Found {
  readonly pairs: readonly PairDraft[];
}

export type Verb = 'follow' | 'friend' | 'request' | 'block' | 'mute';

export const nothing = (ignored: string): FoundPairs => ({ sources: [], pairs: [], ignored });

export interface Parts {
  readonly ctx: Context;
  readonly table: Table;
  readonly direction: Direction;
  readonly reading: SourceDraft['reading'];
  readonly questions: readonly string[];
}

export function pair(
  parts: Parts,
  type: string,
  direction: Direction,
  when: Because<string> | null,
  reason: string,
): SourceDraft {
  const { ctx, table, reading, questions } = parts;
  const { actor, target } = direction;
  const name = type === 'follow' ? 'user_follow' : type;
  return {
    name: ctx.uniqueName(name, reading === null ? null : tableText(table)),
    type,
    table,
    reason,
    key: ctx.keyOf(table, [actor.column.name, target.column.name]),
    actor: { value: personSpec(actor), reason: `${actor.reason}; ${direction.reason}` },
    object: null,
    subject: null,
    recipient: { value: personSpec(target), reason: `${target.reason}; ${direction.reason}` },
    channels: null,
    counter: null,
    include: null,
    when: every(when, refusedCondition(table), liveCondition(table)),
    questions,
    reading,
  };
}

/** `blocked`, `is_rejected`: a boolean that takes the row back. */
function refusedCondition(table: Table): Because<string> | null {
  const column = table.columns.find(
    ({ name, category }) => category === 'B' && /^(?:is_?)?(?:blocked|rejected|ignored|cancell?ed)$/i.test(name),
  );
  return column === undefined
    ? null
    : { value: `${sqlName(column.name)} is not true`, reason: 'a boolean that takes it back, by its name' };
}

/**
 * Whether a person can't be named in the section: it takes columns that hold people's ids, and no path. With a profile's id in the place of
 * its user's somebody else would be blocked, so it is asked about, and nothing is written.
 */
export function isUnnameable(
  ctx: Context,
  table: Table,
  section: PairDraft['section'],
  people: readonly PersonColumn[],
): boolean {
  const over = people.filter(({ hops }) => hops.length > 0);
  if (over.length === 0) return false;
  const columns = over.map(({ column }) => sqlName(column.name)).join(' and ');
  ctx.ask({
    id: `${tableText(table)}.people`,
    text: `${section} takes columns that hold ids of ${tableText(ctx.people.people.table)}, and in ${tableText(table)} ${columns} (${over[0]?.reason ?? ''}) ${over.length === 1 ? 'does' : 'do'} not. Nothing is heeded of it until it has such columns: add them (a trigger can fill them) and write ${section}.`,
    choices: [],
    fallback: 'nothing',
  });
  return true;
}

export const unnameable = nothing('it names people over another table: see the question');

/** `kind`: what tells these rows from other relations in the same table. */
export function section(
  ctx: Context,
  table: Table,
  verb: 'block' | 'mute',
  { actor, target, reason }: Direction,
  reading: PairDraft['reading'],
  questions: readonly string[],
  kind: Because<string> | null = null,
): PairDraft {
  const until = table.columns.find(
    (column) =>
      column.category === 'D' &&
      /^(?:expires?|until|ends?|muted_?until|expiry|expiration)_?(?:at|on|date)?$/i.test(column.name),
  );
  const asked = [...questions];
  const holding = holdingCondition(table);
  const isOpen = holding !== null && 'unknown' in holding;
  if (isOpen) {
    const id = `${tableText(table)}.${holding.unknown.name}`;
    ctx.ask({
      id,
      text: `With which values of ${id} does a ${verb} hold? Nothing says what they mean, so every row counts: write when under ${verb}s.`,
      choices: [],
      fallback: 'all',
    });
    asked.push(id);
  }
  const when = every(kind, isOpen ? null : holding);
  return {
    section: verb === 'block' ? 'blocks' : 'mutes',
    table,
    reason: kind === null ? `"${verb}" in its name, two people` : `${verb}s among other relations`,
    fields: {
      from: { value: actor.column.name, reason },
      to: { value: target.column.name, reason },
      ...(until !== undefined ? { until: { value: until.name, reason: 'a time, by its name' } } : {}),
      ...(when === null ? {} : { when }),
    },
    questions: asked,
    reading,
  };
}
