/**
 * From what a database says about itself to what the config should say. Pure: the same database and answers give the same draft, so that
 * an answer may open further questions, and a test may try any schema.
 *
 * A table is taken for the first of: message, mention, job application, like or repost, comment, pair of people. Posts that answer or
 * repeat posts are looked for besides.
 */

import { tableKey } from '../capture/catalog.js';
import { channelOf, shownToAll } from './access.js';
import { choosePeople } from './choose-people.js';
import { recogniseComments, recognisePosts } from './comments.js';
import { creationTime } from './conditions.js';
import { Context } from './context.js';
import { tableText, type Database, type Table } from './database.js';
import type { ChannelDraft, Draft, PairDraft, SourceDraft } from './draft.js';
import { recogniseLikes, type Found } from './likes.js';
import { recogniseMessages } from './messages.js';
import { recogniseMentionLists } from './mention-lists.js';
import { recogniseApplications, recogniseMentions } from './others.js';
import { recognisePairs } from './pairs.js';
import { describePeople, PeopleFinder } from './people.js';
import { References } from './references.js';
import { BLOCK, COMMENT, FOLLOW, has, LIKE, MENTION, MESSAGE, MUTE, NOISE, wordsOf } from './words.js';

export type Answers = ReadonlyMap<string, string>;

const FRAMEWORKS: readonly (readonly [table: string, name: string])[] = [
  ['ar_internal_metadata', 'Rails'],
  ['django_migrations', 'Django'],
  ['django_content_type', 'Django'],
  ['_prisma_migrations', 'Prisma'],
  ['SequelizeMeta', 'Sequelize'],
  ['knex_migrations', 'Knex'],
  ['typeorm_metadata', 'TypeORM'],
  ['alembic_version', 'SQLAlchemy'],
  ['password_reset_tokens', 'Laravel'],
  ['personal_access_tokens', 'Laravel'],
  ['failed_jobs', 'Laravel'],
  ['flyway_schema_history', 'Flyway'],
  ['databasechangelog', 'Liquibase'],
  ['schema_migrations', 'Rails or Ecto'],
];

export function recognise(database: Database, answers: Answers = new Map()): Draft {
  const framework = FRAMEWORKS.find(([name]) => database.tables.some((table) => table.name === name))?.[1] ?? null;
  const references = new References(database);
  const found = choosePeople(database, references, answers);
  const nothing = { framework, people: null, pairs: [], sources: [], channels: [], ignored: [], notes: [] };
  if (found.people === null) return { ...nothing, questions: found.questions };
  const people = new PeopleFinder(found.people, found.candidates, references);
  const ctx = new Context(database, references, people, framework, answers);
  ctx.questions.push(...found.questions);

  const result: Result = { sources: [], pairs: [], channels: [], ignored: [] };
  for (const table of kindsFirst(database)) if (!ctx.isPeople(table)) recogniseTable(ctx, table, result);
  result.sources = oneFollow(ctx, result.sources).flatMap((source) => shownToAll(ctx, heard(source)));
  const pairs = onePerSection(ctx, result.pairs);
  const kinds = [...new Set([...result.sources.flatMap(channelKinds), ...result.channels.map(({ kind }) => kind)])];
  const channels = kinds.flatMap(
    (kind) => result.channels.find((channel) => channel.kind === kind) ?? channelOf(ctx, kind) ?? [],
  );
  return {
    framework,
    people: describePeople(found.people, found.reason),
    pairs,
    sources: result.sources.map((source) => withTime(ctx, source)),
    channels,
    questions: ctx.questions,
    ignored: result.ignored,
    notes: notesOf(ctx, result.sources),
  };
}

/** Of what is neither counted nor shown no channel would hear. */
function heard(source: SourceDraft): SourceDraft {
  if (source.channels === null || source.counter !== null || source.include !== null) return source;
  const reason = `${source.reason}; no channel hears of it: it has no name of its own for a count, and no columns to show`;
  return { ...source, reason, channels: null };
}

/** Tells what was missed while nothing was captured. */
function withTime(ctx: Context, source: SourceDraft): SourceDraft {
  const table = ctx.database.byKey.get(tableKey(source.table));
  return { ...source, time: table === undefined ? null : creationTime(table) };
}

interface Result {
  sources: SourceDraft[];
  pairs: PairDraft[];
  channels: ChannelDraft[];
  ignored: { table: Table; reason: string }[];
}

/** Things before what is done to them, so that `posts` is the post and not `archived_posts`. */
function kindsFirst(database: Database): Table[] {
  return [...database.tables].sort(
    (a, b) => wordsOf(a.name).length - wordsOf(b.name).length || a.name.localeCompare(b.name, 'en'),
  );
}

function recogniseTable(ctx: Context, table: Table, result: Result): void {
  const found: Found | null =
    recogniseMessages(ctx, table) ??
    recogniseMentions(ctx, table) ??
    recogniseApplications(ctx, table) ??
    recogniseLikes(ctx, table) ??
    recogniseComments(ctx, table) ??
    recognisePairs(ctx, table);
  const posts = recognisePosts(ctx, table);
  if (posts !== null) result.sources.push(...posts.sources);
  result.sources.push(...recogniseMentionLists(ctx, table));
  if (found === null) {
    if (posts === null) unnamed(ctx, table, result);
    const words = wordsOf(table.name);
    const isSocial = [LIKE, COMMENT, FOLLOW, BLOCK, MUTE, MENTION, MESSAGE].some((set) => has(words.slice(-1), set));
    if (
      posts === null &&
      isSocial &&
      !has(words, NOISE) &&
      table.columns.length > 1 &&
      !ctx.people.columnsOf(table).length
    )
      result.ignored.push({ table, reason: 'social by its name, but no column of it is seen to lead to a person' });
    return;
  }
  result.sources.push(...found.sources);
  result.pairs.push(...(found.pairs ?? []));
  result.channels.push(...(found.channels ?? []));
  if (found.ignored !== null) result.ignored.push({ table, reason: found.ignored });
}

/** A join of people and things whose name says nothing, as Prisma's `_PostToUser`: worth a question. */
function unnamed(ctx: Context, table: Table, result: Result): void {
  const people = ctx.people.columnsOf(table);
  const things = ctx.references.of(table).length - people.length;
  if (people.length === 0 || table.columns.length > 3) return;
  if (!/^_/.test(table.name) || people.length + things !== 2) return;
  ctx.ask({
    id: tableText(table),
    text: `What is a row of ${tableText(table)}? Its name doesn't say what the two have to do with each other, so no source was made of it.`,
    choices: [],
    fallback: 'nothing',
  });
  result.ignored.push({ table, reason: 'its name says nothing: see the question' });
}

function channelKinds(source: SourceDraft): string[] {
  return source.channels?.value.flatMap((channel) => channel.split(':')[0] ?? []) ?? [];
}

/** `blocks` and `mutes` take one table each; of several the first is written, and the others asked about. */
function onePerSection(ctx: Context, pairs: readonly PairDraft[]): PairDraft[] {
  return (['blocks', 'mutes', 'threadMutes'] as const).flatMap((section) => {
    const of = pairs.filter((pair) => pair.section === section);
    const tables = [...new Map(of.map(({ table }) => [tableKey(table), table] as const)).values()];
    if (tables.length < 2) return of;
    const id = section;
    const answer = ctx.ask({
      id,
      text: `Which table holds the ${section}? Belfry heeds one.`,
      choices: tables.map((table) => ({ id: tableText(table), text: tableText(table) })),
      fallback: tableText(tables[0] ?? { schema: '', name: '' }),
    });
    return of
      .filter(({ table }) => tableText(table) === answer)
      .map((pair) => ({ ...pair, questions: [...pair.questions, id] }));
  });
}

/** The recipient is a person of the row itself, not the owner of a page or channel. */
function isOfPerson(ctx: Context, { table, recipient }: SourceDraft): boolean {
  const spec = recipient?.value ?? null;
  if (spec === null || (typeof spec === 'object' && ('query' in spec || 'list' in spec))) return false;
  const known = ctx.database.byKey.get(tableKey(table));
  const start = typeof spec === 'string' ? spec : spec.path[0]?.from;
  return known !== undefined && ctx.people.columnsOf(known).some(({ column }) => column.name === start);
}

/** `user_followers` beside `user_following`: one relation kept from both sides, or two relations? */
function oneFollow(ctx: Context, sources: readonly SourceDraft[]): SourceDraft[] {
  const follows = sources.filter(
    (source) => source.type === 'follow' && source.reading === null && isOfPerson(ctx, source),
  );
  const tables = [...new Set(follows.map(({ table }) => tableText(table)))];
  if (tables.length < 2) return [...sources];
  const id = 'follows';
  const answer = ctx.ask({
    id,
    text: `People follow people in ${tables.join(' and ')}. Are they different relations, or is one the other seen from the other side?`,
    choices: [
      { id: 'all', text: 'different relations: each of them notifies' },
      ...tables.map((table) => ({ id: table, text: `only ${table} notifies` })),
    ],
    fallback: 'all',
  });
  const asked = (source: SourceDraft): SourceDraft =>
    follows.includes(source) ? { ...source, questions: [...source.questions, id] } : source;
  return sources
    .filter((source) => answer === 'all' || !follows.includes(source) || tableText(source.table) === answer)
    .map(asked);
}

function notesOf(ctx: Context, sources: readonly SourceDraft[]): string[] {
  const notes: string[] = [];
  const foreign = new Set(
    sources
      .filter(({ table }) => ctx.database.byKey.get(tableKey(table))?.owned === false)
      .map(({ table }) => tableText(table)),
  );
  if (foreign.size > 0)
    notes.push(
      `belfry migrate puts triggers on these tables, so it must run as their owner: ${[...foreign].join(', ')}.`,
    );
  const own = ctx.database.tables.filter((table) => wordsOf(table.name).join(' ') === 'notification');
  for (const table of own)
    notes.push(
      `${tableText(table)}: the application has notifications of its own. Belfry keeps its own beside them and leaves these alone.`,
    );
  return notes;
}
