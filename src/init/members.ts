/**
 * Who takes part in a conversation: by a table of its members, or as the two people of its own row. Pure.
 *
 * Whoever is taken for a member hears of every message and may read it. So a table is taken where its name says members and nothing else
 * (bans and invites lead to a room and a person as well), and of its rows those that hold; the rest is asked about, and nobody is told
 * until it is answered.
 */

import { defaultText, isParameter, meaningsOf, quoted, sqlName, tableText, valuesOf } from './database.js';
import type { Column, Table } from './database.js';
import { isAbout, type Context } from './context.js';
import type { Because, PersonSpec } from './draft.js';
import type { PersonColumn } from './people.js';
import type { Reference } from './references.js';
import { CONVERSATION, has, MEMBER, MESSAGE, NOISE, wordsOf } from './words.js';

export interface Members {
  readonly recipient: Because<PersonSpec>;
  /** Who may watch the conversation's channel: SQL with :id and :user. Null where its key has several columns, since :id holds one. */
  readonly read: string | null;
  /** Ids of questions that it depends on. */
  readonly questions: readonly string[];
}

/** Of the conversation that the reference of a message leads to. Null where nobody is known, or nobody has said yet. */
export function membersOf(ctx: Context, conversation: Reference): Members | null {
  if (!conversation.pairs.every(([from]) => isParameter(from))) return null;
  const joins = joinsOf(ctx, conversation);
  const certain = joins.filter(({ table }) => isNamedMembers(table, conversation.table));
  const [first] = certain;
  if (first !== undefined && certain.length === 1) return membersIn(ctx, first, []);
  const pair = first === undefined ? pairIn(ctx, conversation) : null;
  const possible = first === undefined ? joins : certain;
  if (pair !== null || possible.length === 0) return pair;
  const whole = tableText(conversation.table);
  const id = `${whole}.members`;
  const answer = ctx.ask({
    id,
    text: `Who takes part in a row of ${whole}, and so hears of its messages? ${first === undefined ? 'No table says so by its name alone.' : 'Several tables say so.'}`,
    choices: [
      ...possible.map(({ table }) => ({ id: tableText(table), text: `the people in ${tableText(table)}` })),
      { id: 'none', text: 'none of these: nobody is told of messages' },
    ],
    fallback: 'none',
  });
  const chosen = possible.find(({ table }) => tableText(table) === answer);
  return chosen === undefined ? null : membersIn(ctx, chosen, [id]);
}

/** A row that leads to a conversation and to one person. */
interface Join {
  readonly table: Table;
  readonly person: PersonColumn;
  /** Columns that are equal where a message and this row are of one conversation: all of its key. */
  readonly pairs: readonly (readonly [own: string, ofMessage: string])[];
}

function joinsOf(ctx: Context, conversation: Reference): Join[] {
  return ctx.database.tables.flatMap((table): Join[] => {
    const words = wordsOf(table.name);
    if (table === conversation.table || isAbout(table, MESSAGE) || has(words, NOISE)) return [];
    if (!has(words, MEMBER) && !has(words, CONVERSATION)) return [];
    const to = ctx.references.of(table).find((reference) => reference.table === conversation.table);
    const people = ctx.people.columnsOf(table).filter(({ column }) => !/invite|added|created|by/i.test(column.name));
    const [person] = people;
    if (to === undefined || person === undefined || people.length > 1) return [];
    const pairs = conversation.pairs.flatMap(([ofMessage, key]) =>
      to.pairs.filter(([, match]) => match === key).map(([own]) => [own, ofMessage] as const),
    );
    return pairs.length === conversation.pairs.length ? [{ table, person, pairs }] : [];
  });
}

/** `room_members`, `user_rooms`, and `chat_room_participants` of `chat_rooms`, but no `room_bans` or `muted_room_users`. */
function isNamedMembers(table: Table, conversation: Table): boolean {
  const words = wordsOf(table.name);
  const known = new Set([...MEMBER, ...CONVERSATION, ...wordsOf(conversation.name)]);
  return has(words, MEMBER) && words.every((word) => known.has(word));
}

function membersIn(ctx: Context, { table, person, pairs }: Join, asked: readonly string[]): Members | null {
  const holding = holdingOf(table);
  const questions = [...asked];
  if (holding.unknown !== null) {
    const id = `${tableText(table)}.${holding.unknown.name}`;
    questions.push(id);
    const answer = ctx.ask({
      id,
      text: `With which values of ${id} does a person take part? Nothing says what they mean.`,
      choices: [
        { id: 'none', text: 'nobody is told of messages, until you write a source with them' },
        { id: 'all', text: 'with every value' },
      ],
      fallback: 'none',
    });
    if (answer !== 'all') return null;
  }
  const { value, joins } = personSql(person);
  const from = `from ${tableText(table)} m${joins} where`;
  const still = holding.parts.map((part) => ` and m.${part}`).join('');
  const reason = `who takes part, by ${tableText(table)}; not the sender${still === '' ? '' : ', nor who is out'}`;
  const [[own, ofMessage] = ['', '']] = pairs;
  const read = pairs.length > 1 ? null : `select 1 ${from} m.${sqlName(own)} = :id and ${value} = :user${still}`;
  if (pairs.length === 1 && still === '') {
    const hop = { from: ofMessage, table: tableText(table), match: own, take: person.column.name };
    const rest = person.hops.map(({ table: next, match, take }) => ({ table: next, match, take }));
    return { recipient: { value: { path: [hop, ...rest] }, reason }, read, questions };
  }
  const same = pairs.map(([column, parameter]) => `m.${sqlName(column)} = :${parameter}`).join(' and ');
  return { recipient: { value: { query: `select ${value} ${from} ${same}${still}` }, reason }, read, questions };
}

const OUT =
  /ban|block|pend|request|invit|left|leav|remov|kick|declin|reject|refus|inactive|former|wait|delet|suspend|expel|expir|cancel|revok|disabled|ignored/i;
const IN = /^(?:active|accepted|approved|confirmed|joined|member|participating)$/i;

/** While a row's person takes part: SQL, each part beginning with a column. `unknown`: a state in words that cannot be read. */
function holdingOf(table: Table): { readonly parts: readonly string[]; readonly unknown: Column | null } {
  const parts: string[] = [];
  let unknown: Column | null = null;
  for (const column of table.columns) {
    const name = sqlName(column.name);
    const plain = column.name.replaceAll('_', '').toLowerCase();
    if (column.category === 'D') {
      if (/^(?:left|removed|deleted|discarded|kicked|banned|blocked)(?:at|on)$/.test(plain))
        parts.push(`${name} is null`);
      if (/^(?:accepted|approved|confirmed|joined)(?:at|on)$/.test(plain) && !column.required)
        parts.push(`${name} is not null`);
    } else if (column.category === 'B') {
      if (/^(?:is|has)?(?:left|removed|deleted|kicked|banned|blocked|pending|invited)$/.test(plain))
        parts.push(`${name} is not true`);
      if (/^(?:is|has)?(?:active|accepted|approved|confirmed|joined)$/.test(plain)) parts.push(`${name} is true`);
    } else if (/^(?:member(?:ship)?|participant|invit(?:e|ation)|join|request)?(?:status|state)$/.test(plain)) {
      const values = insideOf(table, column) ?? initialOf(column);
      if (values === null) unknown = column;
      else if (values.length > 0) parts.push(`${name} in (${values.join(', ')})`);
    } else if (/^(?:role|type|kind|membership|affiliation)$/.test(plain)) {
      const values = insideOf(table, column) ?? [];
      if (values.length > 0) parts.push(`${name} in (${values.join(', ')})`);
    }
  }
  return { parts, unknown };
}

/** The values of those who take part, as SQL; none where every value is one of theirs, null where nothing says. */
function insideOf(table: Table, column: Column): string[] | null {
  const known: (readonly [word: string, sql: string])[] = column.integer
    ? [...meaningsOf(column)]
    : (valuesOf(table, column)?.map((value) => [value, quoted(value)] as const) ?? []);
  const inside = known.filter(([word]) => !OUT.test(word));
  if (inside.length === 0) return null;
  return inside.length === known.length ? [] : inside.map(([, sql]) => sql);
}

/** What a text holds where an insert says nothing: whoever is put into a conversation takes part. */
function initialOf(column: Column): string[] | null {
  const initial = column.category === 'S' ? defaultText(column) : null;
  return initial !== null && IN.test(initial) ? [quoted(initial)] : null;
}

/** A conversation of exactly two, who stand in its own row. */
function pairIn(ctx: Context, conversation: Reference): Members | null {
  const { table, match, pairs } = conversation;
  const [first, second, ...others] = ctx.people
    .columnsOf(table)
    .filter(({ column }) => !/created_?by|owner/i.test(column.name));
  if (first === undefined || second === undefined || others.length > 0) return null;
  if (first.hops.length > 0 || second.hops.length > 0) return null;
  const [a, b] = [sqlName(first.column.name), sqlName(second.column.name)];
  const same = pairs.map(([from, to]) => `${sqlName(to)} = :${from}`).join(' and ');
  return {
    recipient: {
      value: { query: `select unnest(array[${a}, ${b}]) from ${tableText(table)} where ${same}` },
      reason: `the two people of ${tableText(table)}; not the sender`,
    },
    read:
      pairs.length > 1
        ? null
        : `select 1 from ${tableText(table)} where ${sqlName(match)} = :id and (${a} = :user or ${b} = :user)`,
    questions: [],
  };
}

function personSql(person: PersonColumn): { value: string; joins: string } {
  let value = `m.${sqlName(person.column.name)}`;
  const joins = person.hops.map((hop, i) => {
    const join = ` join ${hop.table} p${String(i)} on p${String(i)}.${sqlName(hop.match)} = ${value}`;
    value = `p${String(i)}.${sqlName(hop.take)}`;
    return join;
  });
  return { value, joins: joins.join('') };
}
