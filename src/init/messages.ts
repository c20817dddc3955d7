/** Messages: from one person to another, or into a conversation of several. Pure. */

import { tableText, type Table } from './database.js';
import { liveCondition } from './conditions.js';
import type { Context } from './context.js';
import { includedOf } from './comments.js';
import { directionOf } from './directions.js';
import type { ChannelDraft, SourceDraft } from './draft.js';
import type { Found } from './likes.js';
import { membersOf } from './members.js';
import { personSpec, type PersonColumn } from './people.js';
import type { Reference } from './references.js';
import { CONVERSATION, has, LIKE, MENTION, MESSAGE, NOISE, wordsOf } from './words.js';

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

function inConversation(ctx: Context, table: Table, sender: PersonColumn, conversation: Reference): FoundMessages {
  const members = membersOf(ctx, conversation);
  const kind = ctx.kindOf(conversation.table);
  if (members === null)
    return { sources: [], channels: [], ignored: `a message in a ${kind}, but nobody is found who takes part in it` };
  const draft = message(ctx, table, sender, `"message" in its name, in a ${kind}`);
  const include = includedOf(table, sender, ctx.idOf(table));
  const source: SourceDraft = {
    ...draft,
    object: { value: { kind, id: conversation.column.name }, reason: `leads to ${tableText(conversation.table)}` },
    recipient: members.recipient,
    questions: members.questions,
  };
  if (members.read === null) {
    const reason = `the key of ${tableText(conversation.table)} has several columns, and a channel has one id`;
    return {
      sources: [source],
      channels: [{ kind, read: { value: 'none', reason }, questions: [] }],
      ignored: null,
    };
  }
  return {
    sources: [
      {
        ...source,
        channels: { value: [`${kind}:{${conversation.column.name}}`], reason: 'who takes part may watch it' },
        include: include.length < 2 ? null : { value: include, reason: 'what those who watch are shown of it' },
      },
    ],
    channels: [{ kind, read: { value: members.read, reason: 'only who takes part' }, questions: [] }],
    ignored: null,
  };
}
