/** Messages: from one person to another, or into a conversation of several. Pure. */

import { isParameter, sqlName, tableText, type Table } from './database.js';
import { liveCondition } from './conditions.js';
import { isAbout, type Context } from './context.js';
import { includedOf } from './comments.js';
import { directionOf } from './directions.js';
import type { Because, ChannelDraft, PersonSpec, SourceDraft } from './draft.js';
import type { Found } from './likes.js';
import { personSpec, type PersonColumn } from './people.js';
import type { Reference } from './references.js';
import { CONVERSATION, has, LIKE, MEMBER, MENTION, MESSAGE, NOISE, wordsOf } from './words.js';

export interface FoundMessages extends Found {
  readonly channels: readonly ChannelDraft[];
}

/** Null when the table is nothing of the kind. */
export function recogniseMessages(ctx: Context, table: Table): FoundMessages | null {
  const words = wordsOf(table.name);
  if (!has(words.slice(-1), MESSAGE) || has(words, NOISE) || has(words, LIKE) || has(words, MENTION)) return null;
  const people = ctx.people
    .columnsOf(table)
    .filter(({ column }) => !/(?:deleted|updated|read|seen)_?by/i.test(column.name));
  const [only] = people;
  if (only === undefined) return null;
  const direction = people.length === 2 ? directionOf(people, words) : null;
  const conversation = conversationOf(ctx, table);
  if (direction !== null && conversation === null)
    return direct(ctx, table, direction.actor, direction.target, direction.reason);
  const sender = direction?.actor ?? senderOf(people) ?? only;
  if (conversation !== null) return inConversation(ctx, table, sender, conversation);
  if (people.length === 2) return askDirect(ctx, table, people);
  return { sources: [], channels: [], ignored: 'a message, but nobody is found whom it is for' };
}

const senderOf = (people: readonly PersonColumn[]): PersonColumn | undefined =>
  people.find(({ column }) => /send|author|from|creat|user|account|member|profile/i.test(column.name));

function conversationOf(ctx: Context, table: Table): Reference | null {
  return (
    ctx.references
      .of(table)
      .find((reference) => reference.table !== table && has(wordsOf(reference.table.name).slice(-1), CONVERSATION)) ??
    null
  );
}

function message(
  ctx: Context,
  table: Table,
  sender: PersonColumn,
  reason: string,
  isReading = false,
): Omit<SourceDraft, 'recipient'> {
  const id = ctx.idOf(table);
  const live = liveCondition(table);
  return {
    name: ctx.uniqueName(
      has(wordsOf(table.name), new Set(['direct', 'private', 'dm', 'pm'])) ? 'direct_message' : 'message',
      isReading ? tableText(table) : null,
    ),
    type: 'message',
    table,
    reason,
    key: ctx.keyOf(table, id === null ? [sender.column.name] : [id]),
    actor: { value: personSpec(sender), reason: sender.reason },
    object: null,
    subject: id === null ? null : { value: { kind: 'message', id }, reason: 'the message itself' },
    channels: null,
    counter: null,
    include: null,
    when: live,
    questions: [],
    reading: null,
  };
}

function direct(
  ctx: Context,
  table: Table,
  sender: PersonColumn,
  receiver: PersonColumn,
  why: string,
  isReading = false,
): FoundMessages {
  const draft = message(ctx, table, sender, '"message" in its name, from one person to another', isReading);
  return {
    sources: [{ ...draft, recipient: { value: personSpec(receiver), reason: `${receiver.reason}; ${why}` } }],
    channels: [],
    ignored: null,
  };
}

function askDirect(ctx: Context, table: Table, people: readonly PersonColumn[]): FoundMessages {
  const id = `${tableText(table)}.direction`;
  const [first, second] = people;
  if (first === undefined || second === undefined) return { sources: [], channels: [], ignored: null };
  const answer = ctx.ask({
    id,
    text: `Who wrote a message of ${tableText(table)}, and for whom is it? The names of its columns don't tell.`,
    choices: [first, second].map(({ column }) => ({ id: column.name, text: `the person in ${column.name} wrote it` })),
    fallback: null,
  });
  const pairs = [
    [first, second],
    [second, first],
  ] as const;
  const found = pairs.filter(([sender]) => answer === null || sender.column.name === answer);
  const sources = found.flatMap(([sender, receiver]) =>
    direct(
      ctx,
      table,
      sender,
      receiver,
      answer === null ? 'one of two readings' : 'as answered',
      answer === null,
    ).sources.map((source): SourceDraft => ({
      ...source,
      questions: [id],
      reading: answer === null ? { question: id, choice: sender.column.name } : null,
    })),
  );
  return { sources, channels: [], ignored: null };
}

interface Members {
  readonly recipient: Because<PersonSpec>;
  /** Who may read the conversation's channel: SQL with :id and :user. */
  readonly read: string;
}

function inConversation(ctx: Context, table: Table, sender: PersonColumn, conversation: Reference): FoundMessages {
  const members = isParameter(conversation.column.name)
    ? (membersOf(ctx, conversation) ?? pairIn(ctx, conversation))
    : null;
  const kind = ctx.kindOf(conversation.table);
  if (members === null)
    return { sources: [], channels: [], ignored: `a message in a ${kind}, but nobody is found who takes part in it` };
  const draft = message(ctx, table, sender, `"message" in its name, in a ${kind}`);
  const include = includedOf(table, sender, ctx.idOf(table));
  return {
    sources: [
      {
        ...draft,
        object: { value: { kind, id: conversation.column.name }, reason: `leads to ${tableText(conversation.table)}` },
        recipient: members.recipient,
        channels: { value: [`${kind}:{${conversation.column.name}}`], reason: 'who takes part may watch it' },
        include: include.length < 2 ? null : { value: include, reason: 'what those who watch are shown of it' },
      },
    ],
    channels: [{ kind, read: { value: members.read, reason: 'only who takes part' }, questions: [] }],
    ignored: null,
  };
}

/** A table of who takes part: the conversation and a person. */
function membersOf(ctx: Context, conversation: Reference): Members | null {
  for (const table of ctx.database.tables) {
    if (isAbout(table, MESSAGE) || (!has(wordsOf(table.name), MEMBER) && !has(wordsOf(table.name), CONVERSATION)))
      continue;
    const to = ctx.references.of(table).find((reference) => reference.table === conversation.table);
    const people = ctx.people.columnsOf(table).filter(({ column }) => !/invite|added|created|by/i.test(column.name));
    const [person] = people;
    if (to === undefined || person === undefined || people.length > 1) continue;
    const gone = table.columns.find(
      (column) => column.category === 'D' && /^(?:left|removed|deleted)_?(?:at|on)$/i.test(column.name),
    );
    const reason = `who takes part, by ${tableText(table)}; not the sender`;
    const read = readOf(table, to.column.name, person, gone?.name ?? null);
    if (gone === undefined) {
      const hop = {
        from: conversation.column.name,
        table: tableText(table),
        match: to.column.name,
        take: person.column.name,
      };
      const rest = person.hops.map(({ table: next, match, take }) => ({ table: next, match, take }));
      return { recipient: { value: { path: [hop, ...rest] }, reason }, read };
    }
    const { value, joins } = personSql(person);
    const query = `select ${value} from ${tableText(table)} m${joins} where m.${sqlName(to.column.name)} = :${conversation.column.name} and m.${sqlName(gone.name)} is null`;
    return { recipient: { value: { query }, reason: `${reason}, nor who has left` }, read };
  }
  return null;
}

function readOf(table: Table, column: string, person: PersonColumn, gone: string | null): string {
  const { value, joins } = personSql(person);
  const left = gone === null ? '' : ` and m.${sqlName(gone)} is null`;
  return `select 1 from ${tableText(table)} m${joins} where m.${sqlName(column)} = :id and ${value} = :user${left}`;
}

/** A conversation of exactly two, who stand in its own row. */
function pairIn(ctx: Context, conversation: Reference): Members | null {
  const { table, match } = conversation;
  const [first, second, ...others] = ctx.people
    .columnsOf(table)
    .filter(({ column }) => !/created_?by|owner/i.test(column.name));
  if (first === undefined || second === undefined || others.length > 0) return null;
  if (first.hops.length > 0 || second.hops.length > 0) return null;
  const [a, b] = [sqlName(first.column.name), sqlName(second.column.name)];
  return {
    recipient: {
      value: {
        query: `select unnest(array[${a}, ${b}]) from ${tableText(table)} where ${sqlName(match)} = :${conversation.column.name}`,
      },
      reason: `the two people of ${tableText(table)}; not the sender`,
    },
    read: `select 1 from ${tableText(table)} where ${sqlName(match)} = :id and (${a} = :user or ${b} = :user)`,
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
