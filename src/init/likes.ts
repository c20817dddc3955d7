/** Likes, favorites, reactions, votes, hearts, claps, and reposts: one person, one thing of somebody. Pure. */

import { quoted, sqlName, tableText, valuesOf, type Column, type Table } from './database.js';
import { allOf, every, liveCondition, voteOf, type ColumnTest } from './conditions.js';
import { isAbout, polymorphicOf, type Context, type Polymorphic } from './context.js';
import { directionOf } from './directions.js';
import type { Because, ChannelDraft, PairDraft, PersonSpec, SourceDraft } from './draft.js';
import { personSpec, type PersonColumn } from './people.js';
import type { Reference } from './references.js';
import { severalThings, type OneOfSeveral } from './several.js';
import { COMMENT, FOLLOW, has, isContentWord, LIKE, NOISE, REPOST, wordsOf } from './words.js';

export interface Found {
  readonly sources: readonly SourceDraft[];
  readonly pairs?: readonly PairDraft[];
  readonly channels?: readonly ChannelDraft[];
  /** Why nothing was made of the table, where it looked like something. */
  readonly ignored: string | null;
}

/** Null when the table is nothing of the kind. */
export function recogniseLikes(ctx: Context, table: Table): Found | null {
  const words = wordsOf(table.name);
  const set = has(words, LIKE) || isPolymorphicLike(table) ? LIKE : has(words, REPOST) ? REPOST : null;
  if (set === null) return null;
  if (has(words.slice(-1), COMMENT) || has(words, NOISE)) return null;
  const people = ctx.people.columnsOf(table);
  if (people.length === 0) return null;
  if (/down|dislike/i.test(table.name)) return { sources: [], ignored: 'against something, not for it' };
  const word = set === REPOST ? 'repost' : (words.find((w) => LIKE.has(w)) ?? 'like');
  const parts: Parts = { ctx, table, type: set === REPOST ? 'repost' : 'like', word, reason: `"${word}" in its name` };

  const polymorphic = polymorphicOf(table);
  if (polymorphic !== null) return { sources: likesOfMany(parts, people, polymorphic), ignored: null };
  const things = ctx.thingsOf(table).filter(({ table: thing }) => !isContainer(thing) || ctx.ownerOf(thing) !== null);
  const owned = things.filter((reference) => ctx.ownerBehind(reference) !== null);
  if (owned.length === 0) {
    const loose = people.length === 1 ? ctx.looseThingOf(table) : null;
    if (loose !== null)
      return {
        sources: [
          likeOf(parts, people, { reference: loose.reference, when: null, tests: [], questions: [loose.question] }),
        ],
        ignored: null,
      };
    if (people.length > 1 && things.length === 0) return likesOfPeople(parts, people);
    return { sources: [], ignored: 'a person and a thing, but nobody is found whose that thing is' };
  }
  const content = owned.filter(({ table: thing }) => !isContainer(thing));
  const of = severalThings(ctx, table, content.length > 0 ? content : owned);
  return { sources: of.map((one) => likeOf(parts, people, one)), ignored: null };
}

interface Parts {
  readonly ctx: Context;
  readonly table: Table;
  readonly type: string;
  readonly word: string;
  readonly reason: string;
}

const isContainer = (table: Table): boolean =>
  !isContentWord(wordsOf(table.name).at(-1) ?? '') && !isAbout(table, COMMENT);

function isPolymorphicLike(table: Table): boolean {
  return table.columns.some(({ name }) =>
    /^(?:like|vot|favo(?:u)?rit|react|heart|clap)(?:e)?able_?(?:id|type)$/i.test(name),
  );
}

function likeOf(
  parts: Parts,
  people: readonly PersonColumn[],
  { reference, when, questions }: OneOfSeveral,
): SourceDraft {
  const { ctx } = parts;
  const kind = ctx.kindOf(reference.table);
  const recipient = ctx.ownerBehind(reference);
  const column = reference.column.name;
  const how = reference.by === 'foreign key' ? 'foreign key to' : 'by its name and type, there is no foreign key, to';
  return draft(parts, people, {
    kind,
    thing: reference.table,
    id: column,
    keyColumns: reference.pairs.map(([from]) => from),
    objectReason: `${how} ${tableText(reference.table)}`,
    recipient,
    questions: [...questions, ...(recipient?.questions ?? [])],
    when,
    counted: true,
  });
}

interface Object {
  readonly kind: string;
  readonly thing: Table | null;
  readonly id: string;
  readonly keyColumns: readonly string[];
  readonly objectReason: string;
  readonly recipient: Because<PersonSpec> | null;
  readonly questions: readonly string[];
  readonly when: Because<string> | null;
  readonly counted: boolean;
}

function draft(parts: Parts, people: readonly PersonColumn[], object: Object): SourceDraft {
  const { ctx, table, type, word, reason } = parts;
  const questions = [...object.questions];
  const actor = doerOf(ctx, table, people, questions);
  const vote = type === 'like' ? voteOf(table) : ({ kind: 'every' } as const);
  const when = every(object.when, voteCondition(ctx, table, vote, questions), liveCondition(table));
  const { kind, id } = object;
  return {
    name: ctx.uniqueName(`${kind}_${word}`),
    type,
    table,
    reason,
    key: ctx.keyOf(table, [actor.column.name, ...object.keyColumns]),
    actor: { value: personSpec(actor), reason: actor.reason },
    object: { value: { kind, id }, reason: object.objectReason },
    subject: null,
    recipient: object.recipient,
    channels: !object.counted
      ? null
      : { value: [`${kind}:{${id}}`], reason: 'whoever watches it sees the count change' },
    counter: counterOf(parts, object),
    include: null,
    when,
    questions,
    reading: null,
  };
}

/** The first of the standard name, its own word's and its table's that no other table has for these things. Null where none is free. */
function counterOf({ ctx, table, type, word }: Parts, { kind, thing, counted }: Object): SourceDraft['counter'] {
  if (!counted) return null;
  const named = (name: string): { event: string; field: string } => ({
    event: `${name}_update`,
    field: `${name.endsWith('s') ? name : `${name}s`}_count`,
  });
  const own = wordsOf(table.name).filter((one) => !kind.split('_').includes(one));
  const isLeft = type === 'like' && word !== 'like' && thing !== null && isLikedElsewhere(ctx, table, thing);
  const names = [...(isLeft ? [] : [type]), word, own.join('_')].filter((name) => /^[a-z][a-z0-9_]{0,39}$/.test(name));
  const value = names.map(named).find(({ field }) => ctx.takeCounter(kind, field));
  return value === undefined ? null : { value, reason: 'counted by Belfry itself' };
}

/** `likes` beside `favorites`: the standard name is for the one that is called so. */
function isLikedElsewhere(ctx: Context, table: Table, thing: Table): boolean {
  return ctx.database.tables.some((other) => {
    const words = wordsOf(other.name);
    if (other === table || !words.includes('like') || has(words.slice(-1), COMMENT) || has(words, NOISE)) return false;
    return ctx.people.columnsOf(other).length > 0 && ctx.references.of(other).some((to) => to.table === thing);
  });
}

function voteCondition(
  ctx: Context,
  table: Table,
  vote: ReturnType<typeof voteOf>,
  questions: string[],
): Because<string> | null {
  if (vote.kind === 'every') return null;
  if (vote.kind === 'when') return { value: vote.sql, reason: vote.reason };
  const { column, readings, fallback } = vote;
  const id = `${tableText(table)}.${column.name}`;
  questions.push(id);
  const answer = ctx.ask({
    id,
    text: `Which values of ${id} speak for the thing? Nothing in the schema says.`,
    choices: readings.map(({ id: choice, text }) => ({ id: choice, text })),
    fallback,
  });
  const sql = readings.find(({ id: choice }) => choice === answer)?.sql ?? null;
  return sql === null ? null : { value: sql, reason: answer === fallback ? 'see the question' : 'as answered' };
}

/** Of several people in a row the one who does it. */
function doerOf(ctx: Context, table: Table, people: readonly PersonColumn[], questions: string[]): PersonColumn {
  const plain = people.filter(
    ({ column }) => !/(?:approved|created|updated|deleted|owner|recipient|target|notified)/i.test(column.name),
  );
  const [first] = plain.length > 0 ? plain : people;
  if (first === undefined) throw new Error(`${tableText(table)} has no person in it`);
  if (plain.length < 2) return first;
  const id = `${tableText(table)}.actor`;
  questions.push(id);
  const answer = ctx.ask({
    id,
    text: `Who does it in ${tableText(table)}?`,
    choices: plain.map(({ column }) => ({ id: column.name, text: `the person in ${column.name}` })),
    fallback: first.column.name,
  });
  return plain.find(({ column }) => column.name === answer) ?? first;
}

/** A person who likes a person: `profile_likes(liker_id, liked_id)`. */
function likesOfPeople(parts: Parts, people: readonly PersonColumn[]): Found {
  const { table } = parts;
  const direction = directionOf(people, wordsOf(table.name));
  if (direction === null)
    return { sources: [], ignored: 'a person likes a person, but which column is which is not clear' };
  const source = draft(parts, [direction.actor], {
    kind: 'profile',
    thing: null,
    id: direction.target.column.name,
    keyColumns: [direction.target.column.name],
    objectReason: direction.reason,
    recipient: { value: personSpec(direction.target), reason: direction.reason },
    questions: [],
    when: null,
    counted: false,
  });
  return { sources: [source], ignored: null };
}

/** `likeable_type` and `likeable_id`: a source for each kind of thing that the application has. */
function likesOfMany(parts: Parts, people: readonly PersonColumn[], polymorphic: Polymorphic): SourceDraft[] {
  return targetsOf(parts.ctx, parts.table, polymorphic).map((target) =>
    draft(parts, people, {
      kind: target.kind,
      thing: target.table,
      id: polymorphic.id.name,
      keyColumns: [polymorphic.type.name, polymorphic.id.name],
      objectReason: `${polymorphic.type.name} says what it is`,
      recipient: target.recipient,
      questions: target.questions,
      when: target.when,
      counted: target.when !== null,
    }),
  );
}

export interface Target {
  readonly kind: string;
  readonly table: Table;
  readonly recipient: Because<PersonSpec> | null;
  /** Null: every row of the table comes, and the recipient's query tells. Then nothing can be counted. */
  readonly when: Because<string> | null;
  /** What `when` is made of. */
  readonly tests: readonly ColumnTest[];
  readonly questions: readonly string[];
}

/** What a polymorphic pair may lead to: the application's things that are somebody's and have an id of that type. */
export function targetsOf(ctx: Context, table: Table, { type, id }: Polymorphic): Target[] {
  const values = valuesOf(table, type);
  return ctx.database.tables.flatMap((thing): Target[] => {
    const last = wordsOf(thing.name).at(-1) ?? '';
    if (thing === table || ctx.isPeople(thing) || has([last], LIKE) || has([last], FOLLOW)) return [];
    const match = ctx.idOf(thing);
    const matched = thing.columns.find((column) => column.name === match);
    if (match === null || matched === undefined) return [];
    if (matched.category !== id.category && id.category !== 'S') return [];
    const words = wordsOf(thing.name);
    const spelled = values?.filter((value) => isSpelling(value, words)) ?? [];
    if (values !== null ? spelled.length === 0 : !isContentWord(last) && !COMMENT.has(last)) return [];
    const reference: Reference = { column: id, table: thing, match, pairs: [[id.name, match]], by: 'name' };
    const recipient = ctx.ownerBehind(reference);
    if (recipient === null) return [];
    const kind = ctx.kindOf(thing);
    if (type.name === 'content_type_id') {
      const target = django(kind, thing, match, id, recipient);
      return target === null ? [] : [target];
    }
    const list = values === null ? spellings(thing) : spelled;
    const test = list.length === 1 ? `= ${quoted(list[0] ?? '')}` : `in (${list.map(quoted).join(', ')})`;
    const tests = [{ column: type.name, test }];
    const reason =
      values === null ? `every spelling that is customary for ${tableText(thing)}` : `of ${values.join(', ')}`;
    return [
      { kind, table: thing, recipient, when: { value: allOf(tests), reason }, tests, questions: recipient.questions },
    ];
  });
}

// Django keeps the numbers of its models in a table, and they differ from one database to the next: looked up by the name of the model's table.
function django(
  kind: string,
  thing: Table,
  match: string,
  id: Column,
  recipient: Because<PersonSpec> & { readonly questions: readonly string[] },
): Target | null {
  const path = typeof recipient.value === 'object' && 'path' in recipient.value ? recipient.value.path : null;
  if (path === null) return null;
  const object =
    id.category === 'S' ? `case when :${id.name} ~ '^[0-9]{1,18}$' then (:${id.name})::bigint end` : `:${id.name}`;
  let value = `t.${sqlName(path[0]?.take ?? '')}`;
  const joins = path.slice(1).map((hop, i) => {
    const join = ` join ${hop.table} h${String(i)} on h${String(i)}.${sqlName(hop.match)} = ${value}`;
    value = `h${String(i)}.${sqlName(hop.take)}`;
    return join;
  });
  const query =
    `select ${value} from ${tableText(thing)} t${joins.join('')} join ${sqlName(thing.schema)}.django_content_type c on c.id = :content_type_id ` +
    `and c.app_label || '_' || c.model = ${quoted(thing.name)} where t.${sqlName(match)} = ${object}`;
  return {
    kind,
    table: thing,
    recipient: {
      value: { query },
      reason: `${recipient.reason}; the model by its table, since numbers of content types differ between databases`,
    },
    when: null,
    tests: [],
    questions: recipient.questions,
  };
}

function isSpelling(value: string, words: readonly string[]): boolean {
  const said = wordsOf(value.split(/[\\.:/]/).at(-1) ?? '');
  return said.length > 0 && words.slice(-said.length).join() === said.join();
}

/** Post, post, posts and App\Models\Post: Rails, Laravel with and without a morph map, and hand-written ones. */
export function spellings(table: Table): string[] {
  const snake = wordsOf(table.name).join('_');
  const camel = wordsOf(table.name)
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join('');
  return [...new Set([camel, snake, table.name, `App\\Models\\${camel}`])];
}
