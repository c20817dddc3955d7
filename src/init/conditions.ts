/** What columns say about a row: gone or not, wanted or not, seen by whom, answered or not. SQL over the row; pure. */

import { defaultText, meaningsOf, quoted, sqlName, valuesOf, type Column, type Table } from './database.js';
import type { Because } from './draft.js';
import { has, VOTE, wordsOf } from './words.js';

/** While a row counts: not deleted softly, not held back by moderation. Null where no column says anything. */
export function liveCondition(table: Table): Because<string> | null {
  const parts = table.columns.flatMap((column) => liveParts(column) ?? []);
  return parts.length === 0 ? null : { value: parts.join(' and '), reason: 'soft delete or moderation, by the name' };
}

function liveParts(column: Column): string | null {
  const name = sqlName(column.name);
  const plain = column.name.replaceAll('_', '').toLowerCase();
  if (column.category === 'D')
    return /^(?:deleted|removed|discarded|trashed)(?:at|on|time)$/.test(plain) ? `${name} is null` : null;
  if (column.category !== 'B') return null;
  if (/^(?:is)?(?:deleted|removed|discarded|trashed|spam|hidden)$/.test(plain)) return `${name} is not true`;
  return /^(?:is)?approved$/.test(plain) ? `${name} is true` : null;
}

export type Visibility =
  | { readonly kind: 'all' }
  | { readonly kind: 'some'; readonly sql: string; readonly reason: string }
  /** What says so, but not in words that could be read: a column, or the table's policies. */
  | { readonly kind: 'unknown'; readonly says: string };

/** Which rows everybody may see, as far as columns of the table say: those that count, and are meant for all. */
export function visibilityOf(table: Table): Visibility {
  const audience = audienceOf(table);
  const live = liveCondition(table);
  if (live === null || audience.kind === 'unknown') return audience;
  const sql = audience.kind === 'all' ? live.value : `${audience.sql} and ${live.value}`;
  return { kind: 'some', sql, reason: 'by these columns' };
}

/** Which rows are meant for all, whether they still count or not. */
export function audienceOf(table: Table): Visibility {
  if (table.restricted) return { kind: 'unknown', says: 'row-level security' };
  const parts: string[] = [];
  for (const column of table.columns) {
    const name = sqlName(column.name);
    const plain = column.name.replaceAll('_', '').toLowerCase();
    if (/^(?:visibility|privacy(?:level|setting)?|audience|accesslevel|visible(?:to|for)|scope)$/.test(plain)) {
      const open = openValue(table, column);
      if (open === null) return { kind: 'unknown', says: column.name };
      parts.push(`${name} = ${open}`);
    } else if (
      column.category === 'B' &&
      /^(?:is)?(?:private|draft|followersonly|friendsonly|restricted)$/.test(plain)
    ) {
      parts.push(`${name} is not true`);
    } else if (column.category === 'B' && /^(?:is)?(?:public|published|visible)$/.test(plain)) {
      parts.push(`${name} is true`);
    } else if (column.category === 'D' && /^publishedat$/.test(plain)) {
      parts.push(`${name} <= now()`);
    } else if (/^(?:status|state)$/.test(plain)) {
      const shown = shownValue(table, column);
      if (shown === null) return { kind: 'unknown', says: column.name };
      if (shown !== 'every') parts.push(`${name} = ${shown}`);
    }
  }
  if (parts.length === 0) return { kind: 'all' };
  return { kind: 'some', sql: parts.join(' and '), reason: 'by these columns' };
}

const SHOWN = /^(?:published|public|approved)$/i;
const HIDDEN = /draft|privat|hid|unpublish|unlist|pend|schedul|review|moderat|archiv|delet|remov|reject|spam|trash/i;

/** The value of a status that shows a row to all, as SQL; null where none does that some have to, or nothing says what they mean. */
function shownValue(table: Table, column: Column): string | null {
  if (column.integer) {
    const meanings = [...meaningsOf(column)];
    const shown = meanings.find(([word]) => SHOWN.test(word))?.[1];
    return shown ?? (meanings.length > 0 && !meanings.some(([word]) => HIDDEN.test(word)) ? 'every' : null);
  }
  const initial = defaultText(column) ?? '';
  const values = valuesOf(table, column) ?? (SHOWN.test(initial) ? [initial] : null);
  const shown = values?.find((value) => SHOWN.test(value));
  if (shown !== undefined) return quoted(shown);
  return values !== null && !values.some((value) => HIDDEN.test(value)) ? 'every' : null;
}

function openValue(table: Table, column: Column): string | null {
  if (column.category === 'B') return null;
  const said = meaningsOf(column).get('public') ?? meaningsOf(column).get('everyone');
  if (column.integer) return said ?? null;
  const values = valuesOf(table, column) ?? [defaultText(column) ?? ''];
  const open = values.find((value) => /^(?:public|everyone|all|open|world)$/i.test(value));
  return open === undefined ? null : quoted(open);
}

export interface Status {
  readonly column: Column;
  readonly pending: string | null;
  readonly accepted: string | null;
  readonly reason: string;
  /** Taken from custom, not from the schema. */
  readonly assumed: boolean;
}

const PENDING = /^(?:pending|requested|request|sent|waiting|invited|open|new|submitted|applied|received)$/i;
const ACCEPTED = /^(?:accepted|confirmed|approved|active|friends?|following|mutual|connected)$/i;

/** How a request is answered. `unknown`: numbers or texts of which nothing says what they mean. Null: no column of that kind. */
export function statusOf(table: Table): Status | { readonly unknown: Column } | null {
  for (const column of table.columns) {
    const name = sqlName(column.name);
    const plain = column.name.replaceAll('_', '').toLowerCase();
    const reason = 'by the name of the column';
    if (column.category === 'D' && /^(?:accepted|confirmed|approved)(?:at|on)$/.test(plain))
      return { column, pending: `${name} is null`, accepted: `${name} is not null`, reason, assumed: false };
    if (column.category === 'B' && /^(?:is)?(?:accepted|confirmed|approved)$/.test(plain))
      return { column, pending: `${name} is not true`, accepted: `${name} is true`, reason, assumed: false };
    if (column.category === 'B' && /^(?:is)?pending$/.test(plain))
      return { column, pending: `${name} is true`, accepted: `${name} is not true`, reason, assumed: false };
    if (/(?:status|state)$/.test(plain)) return stateOf(table, column);
  }
  return null;
}

function stateOf(table: Table, column: Column): Status | { readonly unknown: Column } {
  const name = sqlName(column.name);
  const meanings = meaningsOf(column);
  const said = (pattern: RegExp): string | undefined => [...meanings].find(([word]) => pattern.test(word))?.[1];
  if (column.integer) {
    const [pending, accepted] = [said(PENDING), said(ACCEPTED)];
    if (pending === undefined && accepted === undefined) return { unknown: column };
    const is = (value: string | undefined): string | null => (value === undefined ? null : `${name} = ${value}`);
    return {
      column,
      pending: is(pending),
      accepted: is(accepted),
      reason: 'the comment on the column says so',
      assumed: false,
    };
  }
  const values = valuesOf(table, column);
  const is = (value: string | undefined): string | null => (value === undefined ? null : `${name} = ${quoted(value)}`);
  if (values !== null) {
    const pending = is(values.find((value) => PENDING.test(value)));
    const accepted = is(values.find((value) => ACCEPTED.test(value)));
    if (pending === null && accepted === null) return { unknown: column };
    return { column, pending, accepted, reason: `of ${values.join(', ')}`, assumed: false };
  }
  const initial = defaultText(column);
  if (initial === null || !PENDING.test(initial)) return { unknown: column };
  const accepted = initial === initial.toUpperCase() ? 'ACCEPTED' : 'accepted';
  return { column, pending: is(initial), accepted: is(accepted), reason: `its default is ${initial}`, assumed: true };
}

export type Vote =
  | { readonly kind: 'every' }
  | { readonly kind: 'when'; readonly sql: string; readonly reason: string }
  | {
      readonly kind: 'asked';
      readonly column: Column;
      readonly readings: readonly Reading[];
      readonly fallback: string;
    };

/** Of a column of which nothing says what its values mean: which rows speak for the object. `sql` null: all. */
export interface Reading {
  readonly id: string;
  readonly text: string;
  readonly sql: string | null;
}

const NEGATIVE = /^(?:down(?:vote)?|dislike|thumbs_?down|angry|minus|negative|bad|-1)$/i;
const POSITIVE = /^(?:up(?:vote)?|like|thumbs_?up|plus|positive|good|1|\+1|love|heart)$/i;

const FOR =
  /^(?:is)?(?:up(?:vote)?|upvoted|positive|liked?|islike|voteup|vote|(?:vote)?(?:flag|value|type|direction))$/;
const AGAINST = /^(?:is)?(?:down(?:vote)?|dislike|negative)$/;
const VALUE =
  /^(?:value|score|vote|votevalue|direction|votetype|weight|rating|reactiontype|reaction|type|kind|category|liketype)$/;

/** By the id of the choice: what it means, and the condition behind the column's name. */
const READINGS = {
  positive: ['1 is for it', '> 0'],
  zero: ['0 is for it', '= 0'],
  true: ['only true', 'is true'],
  false: ['only false', 'is false'],
  up: ['only up', "= 'up'"],
  upvote: ['only upvote', "= 'upvote'"],
  like: ['only like', "= 'like'"],
  every: ['every value is: it only says which kind of reaction', null],
} as const;

function asked(column: Column, ids: readonly (keyof typeof READINGS)[], fallback: keyof typeof READINGS): Vote {
  const name = sqlName(column.name);
  const readings = ids.map((id): Reading => {
    const [text, condition] = READINGS[id];
    const sql = condition === null ? null : `${name} ${condition}`;
    return { id, text: sql === null ? text : `${text}: ${sql}`, sql };
  });
  return { kind: 'asked', column, readings, fallback };
}

/** Which rows of a table of likes or votes speak for the object. */
export function voteOf(table: Table): Vote {
  const isVotes = has(wordsOf(table.name), VOTE);
  const reason = 'a boolean: the others are against it';
  let other: Column | null = null;
  for (const column of table.columns) {
    const name = sqlName(column.name);
    const plain = column.name.replaceAll('_', '').toLowerCase();
    if (column.category === 'B') {
      if (FOR.test(plain)) return { kind: 'when', sql: `${name} is true`, reason };
      if (AGAINST.test(plain)) return { kind: 'when', sql: `${name} is not true`, reason };
      if (isVotes && liveParts(column) === null) other ??= column;
    } else if (VALUE.test(plain)) {
      const vote = valueVote(table, column, isVotes);
      if (vote !== null) return vote;
    }
  }
  return other === null ? { kind: 'every' } : asked(other, ['true', 'false', 'every'], 'every');
}

function valueVote(table: Table, column: Column, isVotes: boolean): Vote | null {
  const name = sqlName(column.name);
  const values = valuesOf(table, column);
  if (column.category === 'N') {
    if (values?.includes('-1') || values?.includes('1')) {
      const bad = values.some((value) => Number(value) <= 0);
      return bad ? { kind: 'when', sql: `${name} > 0`, reason: `a check allows ${values.join(', ')}` } : null;
    }
    const up = [...meaningsOf(column)].find(([word]) => POSITIVE.test(word))?.[1];
    if (up !== undefined) return { kind: 'when', sql: `${name} = ${up}`, reason: 'the comment on the column says so' };
    if (!column.integer) return null;
    return asked(column, ['positive', 'zero', 'every'], /type|kind|reaction/i.test(column.name) ? 'every' : 'positive');
  }
  // A text of which nothing says what it can be: `category` may well hold "readinglist" and "thumbsdown" beside "like".
  if (values === null) {
    if (column.category !== 'S' || /^reaction$/i.test(column.name)) return null;
    const isDirection = /vote|direction/i.test(column.name);
    if (!isDirection && /(?:type|kind|category)$/i.test(column.name)) return asked(column, ['like', 'every'], 'every');
    return asked(column, ['up', 'upvote', 'like', 'every'], isVotes || isDirection ? 'up' : 'every');
  }
  const bad = values.filter((value) => NEGATIVE.test(value) || /^(?:none|neutral|0)$/i.test(value));
  if (bad.length === 0) return null;
  const good = values.filter((value) => !bad.includes(value));
  const sql = good.length === 1 ? `${name} = ${quoted(good[0] ?? '')}` : `${name} in (${good.map(quoted).join(', ')})`;
  return { kind: 'when', sql, reason: `of ${values.join(', ')}` };
}

/** What a column of a row holds: `is null`, `in ('Post', 'post')`. */
export interface ColumnTest {
  readonly column: string;
  readonly test: string;
}

/** All of them, as SQL over the row; `nameOf` says otherwise how a column is named. */
export function allOf(tests: readonly ColumnTest[], nameOf: (column: string) => string = sqlName): string {
  return tests.map(({ column, test }) => `${nameOf(column)} ${test}`).join(' and ');
}

/** Parts joined with and; null for none. */
export function every(...parts: readonly (Because<string> | null)[]): Because<string> | null {
  const known = parts.filter((part) => part !== null);
  if (known.length === 0) return null;
  return { value: known.map((part) => part.value).join(' and '), reason: known.map((part) => part.reason).join('; ') };
}

/** When a row came to be: a column that is named so. Null where none is, or several are. */
export function creationTime(table: Table): Because<string> | null {
  const named = table.columns.filter(
    ({ name, type, virtual }) =>
      /^timestamp/.test(type) &&
      !virtual &&
      /^(?:date)?(?:created|inserted|added)(?:at|on|date|time|timestamp)?$/.test(
        name.replaceAll('_', '').toLowerCase(),
      ),
  );
  const [column] = named;
  if (column === undefined || named.length > 1) return null;
  const zone = column.type === 'timestamp with time zone' ? '' : '; a time without a zone is taken as UTC';
  return { value: column.name, reason: `when a row came to be, by its name${zone}` };
}

/** Rows of blocks and mutes that hold: not lifted again by a flag. `unknown`: a state of which nothing says what it means. */
export function holdingCondition(table: Table): Because<string> | { readonly unknown: Column } | null {
  const parts: (Because<string> | null)[] = [liveCondition(table)];
  for (const column of table.columns) {
    const name = sqlName(column.name);
    const plain = column.name.replaceAll('_', '').toLowerCase();
    if (column.category === 'B' && /^(?:is)?(?:active|enabled|blocked|muted|blocking|muting)$/.test(plain))
      parts.push({ value: `${name} is true`, reason: 'a boolean, by its name' });
    else if (
      column.category === 'B' &&
      /^(?:is)?(?:inactive|disabled|lifted|revoked|cancell?ed|unblocked)$/.test(plain)
    )
      parts.push({ value: `${name} is not true`, reason: 'a boolean that takes it back, by its name' });
    else if (column.category === 'D' && /^(?:unblocked|unmuted|lifted|revoked|ended)(?:at|on)$/.test(plain))
      parts.push({ value: `${name} is null`, reason: 'a time at which it was taken back, by its name' });
    else if (/^(?:status|state)$/.test(plain)) {
      const values = valuesOf(table, column);
      const on = values?.find((value) => /^(?:active|blocked|muted|enabled|on)$/i.test(value));
      if (values === null || on === undefined) return { unknown: column };
      parts.push({ value: `${name} = ${quoted(on)}`, reason: `of ${values.join(', ')}` });
    }
  }
  return every(...parts);
}
