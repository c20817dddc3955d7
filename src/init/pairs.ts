/** Two people in a row: follows, friendships, requests, blocks and mutes. Pure. */

import { meaningsOf, quoted, sqlName, tableText, valuesOf, type Column, type Table } from './database.js';
import { statusOf, type Status } from './conditions.js';
import { polymorphicOf, type Context } from './context.js';
import { directionOf, type Direction } from './directions.js';
import type { Because, PairDraft, SourceDraft } from './draft.js';
import type { Found } from './likes.js';
import { onePerson } from './one-person.js';
import {
  isUnnameable,
  nothing,
  pair,
  section,
  unnameable,
  type FoundPairs,
  type Parts,
  type Verb,
} from './pair-drafts.js';
import type { PersonColumn } from './people.js';
import { BLOCK, FOLLOW, has, LIKE, MESSAGE, MUTE, NOISE, REQUEST, wordsOf } from './words.js';

/** Null when the table is nothing of the kind. */
export function recognisePairs(ctx: Context, table: Table): FoundPairs | null {
  const words = wordsOf(table.name);
  const verb = verbOf(words);
  if (verb === null || has(words, NOISE) || has(words.slice(-1), LIKE)) return null;
  const people = withoutAudit(ctx.people.columnsOf(table));
  if (people.length === 0) return null;
  if (people.length === 1) return onePerson(ctx, table, verb, people[0]);
  if (polymorphicOf(table) !== null && people.length < 2) return nothing('what is followed can be of several kinds');

  const kinds = kindsOf(table);
  if (kinds !== null) return byKind(ctx, table, people, words, kinds);
  if ((verb === 'block' || verb === 'mute') && isUnnameable(ctx, table, `${verb}s`, people)) return unnameable;
  if (isVague(words) && directionOf(people, words) === null)
    return nothing('two people, but nothing says what their relation is');
  return withDirection(ctx, table, people, verb, (direction, reading, questions) =>
    of(ctx, table, verb, direction, reading, questions),
  );
}

function verbOf(words: readonly string[]): Verb | null {
  if (has(words, BLOCK)) return 'block';
  if (has(words, MUTE)) return 'mute';
  const isSocial = has(words, FOLLOW) || words.includes('contact');
  if (has(words, REQUEST)) return isSocial || words.includes('buddy') ? 'request' : null;
  if (/\bfriend(?:ship)?\b/.test(words.join(' '))) return 'friend';
  return has(words, FOLLOW) && !has(words, MESSAGE) ? 'follow' : null;
}

const isVague = (words: readonly string[]): boolean =>
  /^(?:relation|relationship|connection)$/.test(words.at(-1) ?? '') && words.length < 3;

/** Who approved or changed a row is not part of the pair; who created it may be. */
function withoutAudit(people: readonly PersonColumn[]): PersonColumn[] {
  const pair = people.filter(({ column }) => !/(?:updated|approved|deleted|modified|edited|action)/i.test(column.name));
  return pair.length <= 2 ? pair : pair.filter(({ column }) => !/created/i.test(column.name));
}

type Build = (direction: Direction, reading: SourceDraft['reading'], questions: readonly string[]) => FoundPairs;

/** Builds once where the direction is plain, and both readings where only a person can tell. */
function withDirection(
  ctx: Context,
  table: Table,
  people: readonly PersonColumn[],
  verb: Verb,
  build: Build,
): FoundPairs {
  const [first, second] = people;
  if (first === undefined || second === undefined || people.length > 2) return nothing('more than two people in a row');
  const doubtful = [first, second].find(({ byName }) => byName && first.byName !== second.byName);
  if (doubtful !== undefined && !isPerson(ctx, table, doubtful))
    return nothing(`whether ${doubtful.column.name} is a person: see the question`);
  const plain = directionOf(people, wordsOf(table.name));
  if (plain !== null) return build(plain, null, []);
  const id = `${tableText(table)}.direction`;
  const says = { follow: 'follows', friend: 'befriended', request: 'asked', block: 'blocks', mute: 'mutes' }[verb];
  const directions = [
    { actor: first, target: second },
    { actor: second, target: first },
  ].map(({ actor, target }) => ({
    actor,
    target,
    id: actor.column.name,
    text: `the person in ${actor.column.name} ${says} the person in ${target.column.name}`,
  }));
  const answer = ctx.ask({
    id,
    text: `Who ${says} whom in ${tableText(table)}? The names of its columns don't tell.`,
    choices: directions.map(({ id: choice, text }) => ({ id: choice, text })),
    fallback: null,
  });
  const found = directions
    .filter((direction) => answer === null || direction.id === answer)
    .map(({ actor, target, id: choice }) =>
      build(
        { actor, target, reason: answer === null ? 'one of two readings' : 'as answered' },
        answer === null ? { question: id, choice } : null,
        [id],
      ),
    );
  return {
    sources: found.flatMap(({ sources }) => sources),
    pairs: found.flatMap(({ pairs }) => pairs),
    ignored: null,
  };
}

/** One column has a foreign key to people and the other has none: `channel_following.followeeId` is a channel. */
function isPerson(ctx: Context, table: Table, { column }: PersonColumn): boolean {
  const id = `${tableText(table)}.${column.name}`;
  const answer = ctx.ask({
    id,
    text: `Is ${id} a person? It has no foreign key, unlike the other column of the pair. No source is made of the table unless you say so.`,
    choices: [
      { id: 'yes', text: 'it is a person' },
      { id: 'no', text: 'it is something else' },
    ],
    fallback: 'no',
  });
  return answer === 'yes';
}

function of(
  ctx: Context,
  table: Table,
  verb: Verb,
  direction: Direction,
  reading: SourceDraft['reading'],
  questions: readonly string[],
): FoundPairs {
  if (verb === 'block' || verb === 'mute') {
    return { sources: [], pairs: [section(ctx, table, verb, direction, reading, questions)], ignored: null };
  }
  const parts: Parts = { ctx, table, direction, reading, questions };
  const status = statusOf(table);
  if (status !== null && 'unknown' in status) return { ...askStatus(parts, verb, status.unknown), pairs: [] };
  return { sources: withStatus(parts, verb, status), pairs: [], ignored: null };
}

function withStatus(parts: Parts, verb: Verb, status: Status | null): SourceDraft[] {
  const { ctx, table, direction, questions } = parts;
  const asked = [...questions];
  if (status?.assumed) {
    const id = `${tableText(table)}.${status.column.name}`;
    ctx.ask({
      id,
      text: `Is a request in ${tableText(table)} accepted when ${status.accepted ?? ''}? Only its default is known, no list of values.`,
      choices: [{ id: 'yes', text: 'yes' }],
      fallback: 'yes',
    });
    asked.push(id);
  }
  const withAsked = { ...parts, questions: asked };
  const because = (sql: string | null): Because<string> | null =>
    sql === null ? null : { value: sql, reason: status?.reason ?? '' };
  const back: Direction = { actor: direction.target, target: direction.actor, reason: 'who was asked has accepted' };
  if (verb === 'request')
    return [pair(withAsked, 'friend_request', direction, because(status?.pending ?? null), '"request" in its name')];
  if (status === null) return [pair(parts, 'follow', direction, null, `"${verb}" in its name, two people`)];
  const request = pair(withAsked, 'friend_request', direction, because(status.pending), 'not yet answered');
  if (verb === 'friend')
    return [request, pair(withAsked, 'friend_accepted', back, because(status.accepted), 'accepted: who asked is told')];
  return [
    pair(withAsked, 'follow', direction, because(status.accepted), `"${verb}" in its name, two people`),
    ...(status.pending === null ? [] : [request]),
  ];
}

/** Numbers or texts that nothing explains: every reading is left to a person. */
function askStatus(parts: Parts, verb: Verb, column: Column): Found {
  const { ctx, table } = parts;
  const id = `${tableText(table)}.${column.name}`;
  const readings = statesOf(table, column);
  const answer = ctx.ask({
    id,
    text: `What do the values of ${id} mean? Nothing in the schema says which is waiting and which accepted.`,
    choices: readings.map(([choice, pending, accepted]) => ({
      id: choice,
      text: `waiting: ${pending}, accepted: ${accepted}`,
    })),
    fallback: readings.length === 0 ? 'none' : null,
  });
  const sources = readings
    .filter(([choice]) => answer === null || choice === answer)
    .flatMap(([choice, pending, accepted]) => {
      const status: Status = {
        column,
        pending,
        accepted,
        reason: answer === null ? 'one reading' : 'as answered',
        assumed: false,
      };
      return withStatus(
        {
          ...parts,
          reading: parts.reading ?? (answer === null ? { question: id, choice } : null),
          questions: [...parts.questions, id],
        },
        verb,
        status,
      );
    });
  return { sources, ignored: null };
}

/** What the values of the column could mean, in SQL that its type takes; none where nothing is known of them. */
function statesOf(
  table: Table,
  column: Column,
): readonly (readonly [choice: string, pending: string, accepted: string])[] {
  const name = sqlName(column.name);
  if (column.integer)
    return [
      ['0-1', `${name} = 0`, `${name} = 1`],
      ['1-2', `${name} = 1`, `${name} = 2`],
    ];
  if (column.category === 'B')
    return [
      ['true', `${name} is not true`, `${name} is true`],
      ['false', `${name} is true`, `${name} is not true`],
    ];
  const [one, other] = valuesOf(table, column) ?? (column.category === 'S' ? ['pending', 'accepted'] : []);
  if (one === undefined || other === undefined) return [];
  return [
    [one, `${name} = ${quoted(one)}`, `${name} = ${quoted(other)}`],
    [other, `${name} = ${quoted(other)}`, `${name} = ${quoted(one)}`],
  ];
}

/** A column that says which relation a row is: `type in ('follow', 'block')`. */
function kindsOf(table: Table): { column: Column; kinds: ReadonlyMap<string, string> | null } | null {
  const column = table.columns.find(({ name }) =>
    /^(?:type|kind|relation(?:ship)?_?(?:type|kind)?|rel_?type|verb)$/i.test(name),
  );
  if (column === undefined) return null;
  const values = column.integer ? null : valuesOf(table, column);
  if (values !== null)
    return {
      column,
      kinds: new Map(values.map((value) => [value.toLowerCase(), `${sqlName(column.name)} = ${quoted(value)}`])),
    };
  const meanings = meaningsOf(column);
  if (meanings.size === 0) return { column, kinds: null };
  return { column, kinds: new Map([...meanings].map(([word, value]) => [word, `${sqlName(column.name)} = ${value}`])) };
}

function byKind(
  ctx: Context,
  table: Table,
  people: readonly PersonColumn[],
  words: readonly string[],
  { column, kinds }: NonNullable<ReturnType<typeof kindsOf>>,
): FoundPairs {
  if (kinds === null) {
    ctx.ask({
      id: `${tableText(table)}.${column.name}`,
      text: `Which values has ${tableText(table)}.${column.name}? Nothing says which rows are follows, which requests, blocks or mutes, so no source was made of the table.`,
      choices: [],
      fallback: 'none',
    });
    return nothing(`nothing says what the values of ${column.name} mean`);
  }
  return withDirection(ctx, table, people, 'follow', (direction, reading, questions) => {
    const parts: Parts = { ctx, table, direction, reading, questions };
    const sources: SourceDraft[] = [];
    const pairs: PairDraft[] = [];
    for (const [kind, sql] of kinds) {
      const verb = verbOf(wordsOf(kind));
      const when = { value: sql, reason: `of ${[...kinds.keys()].join(', ')}` };
      if (verb === 'follow' || verb === 'friend')
        sources.push(pair(parts, 'follow', direction, when, `${column.name} says so`));
      if (verb === 'request' || kind === 'requested' || kind === 'pending')
        sources.push(pair(parts, 'friend_request', direction, when, `${column.name} says so`));
      if ((verb === 'block' || verb === 'mute') && !isUnnameable(ctx, table, `${verb}s`, people))
        pairs.push(section(ctx, table, verb, direction, reading, questions, when));
    }
    return {
      sources,
      pairs,
      ignored:
        sources.length + pairs.length === 0
          ? `none of its kinds (${[...kinds.keys()].join(', ')}) is a follow among ${words.join(' ')}`
          : null,
    };
  });
}
