/**
 * Who may watch the channel of a thing, and which rows are told there: no more than the columns of their tables say that everybody may
 * see. Pure.
 */

import { tableKey } from '../capture/catalog.js';
import { audienceOf, every, visibilityOf, type Visibility } from './conditions.js';
import { lastWord, polymorphicOf, type Context } from './context.js';
import { sqlName, tableText, type Table } from './database.js';
import type { ChannelDraft, SourceDraft } from './draft.js';
import type { Reference } from './references.js';
import { COMMENT, wordsOf } from './words.js';

/** Groups whose things are for their members, as opposed to a community that anybody reads. */
const CLOSED =
  /^(?:workspace|team|organi[sz]ation|org|tenant|company|group|room|project|circle|family|class|school|household|server|guild)$/;

/** Null for a kind of which no table is known. */
export function channelOf(ctx: Context, kind: string): ChannelDraft | null {
  const table = ctx.tableOfKind(kind);
  const id = table === null ? null : ctx.idOf(table);
  if (table === null || id === null)
    return {
      kind,
      read: { value: 'none', reason: 'what it is is not known: public, or SQL with :user and :id' },
      questions: [],
    };
  const condition = conditionOf(ctx, table, 0);
  const questions: string[] = [];
  if (condition.closed !== null) {
    const question = `channels.${kind}`;
    questions.push(question);
    const answer = ctx.ask({
      id: question,
      text: condition.closed,
      choices: [
        {
          id: 'none',
          text: 'nobody may watch, until you write SQL with :user and :id that returns a row for those who may',
        },
        { id: 'public', text: 'everybody with a token may watch' },
      ],
      fallback: 'none',
    });
    if (answer === 'none')
      return { kind, read: { value: 'none', reason: 'see the question; notifications come all the same' }, questions };
  }
  if (condition.parts.length === 0)
    return {
      kind,
      read: { value: 'public', reason: `no column of ${tableText(table)} says that only some may see it` },
      questions,
    };
  const sql = `select 1 from ${tableText(table)} where ${sqlName(id)} = :id and ${condition.parts.join(' and ')}`;
  return {
    kind,
    read: { value: sql, reason: `only what ${condition.columns.join(', ')} lets everybody see` },
    questions,
  };
}

interface Condition {
  readonly parts: readonly string[];
  readonly columns: readonly string[];
  /** The question, where the columns don't tell who may see it. */
  readonly closed: string | null;
}

function conditionOf(ctx: Context, table: Table, depth: number): Condition {
  const visibility = visibilityOf(table);
  if (visibility.kind === 'unknown') {
    return {
      parts: [],
      columns: [],
      closed: `Who may watch a row of ${tableText(table)}? Its ${visibility.says} says, but not in words that could be read.`,
    };
  }
  const parts = visibility.kind === 'some' ? [visibility.sql] : [];
  const columns = visibility.kind === 'some' ? [tableText(table)] : [];
  // A comment is seen by whoever sees what it is about.
  const whole =
    depth > 1 || !COMMENT.has(lastWord(table))
      ? undefined
      : ctx.thingsOf(table).find((reference) => ctx.ownerOf(reference.table) !== null);
  if (whole === undefined && COMMENT.has(lastWord(table)) && polymorphicOf(table) !== null) {
    return {
      parts,
      columns,
      closed: `Who may watch a row of ${tableText(table)}? Whoever may see what it is about, but that can be of several kinds.`,
    };
  }
  const closed = hiddenBy(ctx, table, whole, 0);
  if (whole === undefined) return { parts, columns, closed };
  const found = conditionOf(ctx, whole.table, depth + 1);
  const above = { ...found, closed: closed ?? found.closed };
  if (above.parts.length === 0) return { parts, columns, closed: above.closed };
  const inner = `${sqlName(whole.column.name)} in (select ${sqlName(whole.match)} from ${tableText(whole.table)} where ${above.parts.join(' and ')})`;
  return { parts: [...parts, inner], columns: [...columns, ...above.columns], closed: above.closed };
}

/** A photo of an album of a workspace: what is further away is not asked about. */
const MAX_CONTAINERS = 2;

/** The question, where a row is in something, or is somebody's, that not everybody may see. `whole` has been looked at. */
function hiddenBy(ctx: Context, table: Table, whole: Reference | undefined, depth: number): string | null {
  const people = ctx.people.columnsOf(table);
  if (people.length > 0 && accountsOf(ctx.people.people.table).kind !== 'all') return hiddenPeople(ctx, table);
  for (const reference of ctx.references.of(table)) {
    const above = reference.table;
    if (reference === whole || above === table || ctx.isPeople(above)) continue;
    const name = tableText(above);
    const leads = `${tableText(table)}.${reference.column.name} leads there.`;
    if (people.some(({ column }) => column === reference.column)) {
      if (accountsOf(above).kind !== 'all') return hiddenPeople(ctx, table, above);
      continue;
    }
    if (CLOSED.test(wordsOf(above.name).at(-1) ?? ''))
      return `May everybody watch what is in a row of ${name}, or only its members? ${leads}`;
    if (audienceOf(above).kind !== 'all')
      return `May everybody watch what is in a row of ${name}, of which some are not for all? ${leads}`;
    const further = depth + 1 < MAX_CONTAINERS ? hiddenBy(ctx, above, undefined, depth + 1) : null;
    if (further !== null) return further;
  }
  return null;
}

const hiddenPeople = (ctx: Context, table: Table, people = ctx.people.people.table): string =>
  `May everybody watch a row of ${tableText(table)}, whosever it is? Not all people of ${tableText(people)} show to everybody what is theirs.`;

/** Accounts that everybody may see. Their status says whether they may come in, policies who reads their addresses: neither who sees what they write. */
const accountsOf = (people: Table): Visibility =>
  audienceOf({
    ...people,
    restricted: false,
    columns: people.columns.filter(({ name }) => !/^(?:status|state)$/i.test(name)),
  });

/**
 * A private answer to a public post is not for those who watch the post: what only some may see notifies as before, and a source of its
 * own tells the channel of the rest. Where the columns don't tell, nothing goes there until somebody has answered.
 */
export function shownToAll(ctx: Context, source: SourceDraft): SourceDraft[] {
  const table = ctx.database.byKey.get(tableKey(source.table));
  // Messages are told to who takes part in a conversation, whatever their own columns say.
  if (table === undefined || source.channels === null || source.type === 'message') return [source];
  const audience = audienceOf(table);
  if (audience.kind === 'all') return [source];
  const notifying: SourceDraft = { ...source, channels: null, counter: null, include: null };
  if (audience.kind === 'some') {
    const shown: SourceDraft = {
      ...source,
      name: ctx.uniqueName(`${source.name}_public`),
      reason: 'what of it everybody may see goes to those who watch',
      recipient: null,
      when: every(source.when, { value: audience.sql, reason: 'meant for all, by the name' }),
    };
    return source.recipient === null ? [shown] : [notifying, shown];
  }
  const id = `${tableText(table)}.${audience.says}`;
  const questions = [...source.questions, id];
  const answer = ctx.ask({
    id,
    text: `Which rows of ${tableText(table)} may those see who watch what they are about? ${id} says, but not in words that could be read.`,
    choices: [
      { id: 'none', text: 'none of them is told in a channel; whoever is notified hears of them all the same' },
      { id: 'all', text: 'all of them' },
    ],
    fallback: 'none',
  });
  if (answer === 'all') return [{ ...source, questions }];
  return source.recipient === null ? [] : [{ ...notifying, questions }];
}
