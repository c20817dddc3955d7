/** Comments, replies and answers: in a table of their own, or as posts that refer to posts, which reposts may do too. Pure. */

import { isParameter, sqlName, tableText, type Column, type Table } from './database.js';
import { allOf, every, liveCondition, type ColumnTest } from './conditions.js';
import { polymorphicOf, type Context } from './context.js';
import type { Because, PersonSpec, SourceDraft } from './draft.js';
import { targetsOf, type Found } from './likes.js';
import { personSpec, type PersonColumn } from './people.js';
import type { Reference } from './references.js';
import { severalThings } from './several.js';
import { COMMENT, has, isContentWord, LIKE, MENTION, NOISE, wordsOf } from './words.js';

const CONTAINERS =
  /^(?:community|subreddit|forum|board|category|group|team|workspace|organi[sz]ation|org|tenant|site|space|channel|company)$/;

/** Null when the table is nothing of the kind. */
export function recogniseComments(ctx: Context, table: Table): Found | null {
  const words = wordsOf(table.name);
  if (!has(words.slice(-1), COMMENT) || has(words, NOISE) || has(words.slice(0, -1), LIKE) || has(words, MENTION))
    return null;
  const author = ctx.ownerOf(table);
  const people = ctx.people.columnsOf(table);
  const writer = people.find(({ column }) => column.name === author?.column);
  if (author === null || writer === undefined)
    return people.length === 0 ? null : { sources: [], ignored: 'who wrote it is not clear' };
  const parts = { ctx, table, writer, word: words.at(-1) ?? 'comment', questions: author.questions };

  const polymorphic = polymorphicOf(table);
  if (polymorphic !== null) {
    const targets = targetsOf(ctx, table, polymorphic);
    const sources = targets.map((target) =>
      draft(parts, {
        kind: target.kind,
        id: polymorphic.id.name,
        reason: `${polymorphic.type.name} says what it is`,
        recipient: target.recipient,
        when: target.when,
        questions: target.questions,
      }),
    );
    return { sources: [...sources, ...repliesOf(parts, targets)], ignored: null };
  }
  const things = ctx.thingsOf(table).filter(({ table: thing }) => !CONTAINERS.test(wordsOf(thing.name).at(-1) ?? ''));
  const content = things.filter(({ table: thing }) => isThing(thing) && ctx.ownerOf(thing) !== null);
  const of = content.length > 0 ? content : things.filter(({ table: thing }) => ctx.ownerOf(thing) !== null);
  const wanted = severalThings(ctx, table, of);
  if (wanted.length === 0) {
    const replies = repliesOf(parts, []);
    return replies.length > 0
      ? { sources: replies, ignored: null }
      : { sources: [], ignored: 'nobody is found whose the thing commented on is' };
  }
  const sources = wanted.map(({ reference, when, questions }) => {
    const recipient = ctx.ownerBehind(reference);
    const column = reference.column.name;
    const how = reference.by === 'foreign key' ? 'foreign key to' : 'by its name and type, there is no foreign key, to';
    return draft(parts, {
      kind: ctx.kindOf(reference.table),
      id: column,
      reason: `${how} ${tableText(reference.table)}`,
      recipient,
      when,
      questions: [...questions, ...(recipient?.questions ?? [])],
    });
  });
  const wholes = wanted.map(({ reference, tests }) => ({ recipient: ctx.ownerBehind(reference), tests }));
  return { sources: [...sources, ...repliesOf(parts, wholes)], ignored: null };
}

const isThing = (table: Table): boolean => {
  const last = wordsOf(table.name).at(-1) ?? '';
  return isContentWord(last) || COMMENT.has(last);
};

interface Parts {
  readonly ctx: Context;
  readonly table: Table;
  readonly writer: PersonColumn;
  readonly word: string;
  readonly questions: readonly string[];
}

interface Commented {
  readonly kind: string;
  readonly id: string;
  readonly reason: string;
  readonly recipient: Because<PersonSpec> | null;
  readonly when: Because<string> | null;
  readonly questions: readonly string[];
}

function draft({ ctx, table, writer, word, questions }: Parts, on: Commented): SourceDraft {
  const id = ctx.idOf(table);
  const kind = ctx.kindOf(table);
  const isStandard = ctx.takeCounter(on.kind, 'comments_count');
  const field = `${word === 'reply' ? 'replies' : `${word}s`}_count`;
  const counter = isStandard
    ? { event: 'comment_update', field: 'comments_count' }
    : ctx.takeCounter(on.kind, field)
      ? { event: `${word}_update`, field }
      : null;
  const include = includedOf(table, writer, id);
  return {
    name: ctx.uniqueName(`${on.kind}_${word}`),
    type: 'comment',
    table,
    reason: `"${word}" in its name, written by a person about a thing`,
    key: ctx.keyOf(table, id === null ? [writer.column.name, on.id] : [id]),
    actor: { value: personSpec(writer), reason: writer.reason },
    object: { value: { kind: on.kind, id: on.id }, reason: on.reason },
    subject: id === null || kind === on.kind ? null : { value: { kind, id }, reason: 'the thing itself' },
    recipient: on.recipient,
    channels: { value: [`${on.kind}:{${on.id}}`], reason: 'whoever watches it sees the new ones' },
    counter: counter === null ? null : { value: counter, reason: 'counted by Belfry itself' },
    include: include.length < 2 ? null : { value: include, reason: 'what those who watch are shown of it' },
    when: every(on.when, liveCondition(table)),
    questions: [...questions, ...on.questions],
    reading: null,
  };
}

/** What is shown of a comment or message: its id, its text, who wrote it. */
export function includedOf(table: Table, writer: PersonColumn, id: string | null): string[] {
  const texts = table.columns.filter((column) => column.category === 'S' && !column.array && !column.virtual);
  const text =
    texts.find(({ name }) => /^(?:content|body|text|message|comment|answer|reply)$/i.test(name)) ??
    texts.find(({ name }) =>
      /^(?:(?:comment|reply|answer|message)_?(?:text|body|content)|(?:content|body)_?(?:text|markdown|md|raw))$/i.test(
        name,
      ),
    );
  return [id, text?.name ?? null, writer.column.name].filter((name) => name !== null);
}

/** What a comment is about, while the tests hold: whoever owns it hears of the comment already. */
interface Whole {
  readonly recipient: Because<PersonSpec> | null;
  readonly tests: readonly ColumnTest[];
}

/** A comment on a comment: its author hears of it too, but not twice. */
function repliesOf(parts: Parts, wholes: readonly Whole[]): SourceDraft[] {
  const { ctx, table, writer } = parts;
  const parent = parentOf(ctx, table);
  if (parent === null) return pathReplies(parts);
  const owner = ctx.ownerOf(table);
  if (owner === null) return [];
  const behind = ctx.ownerBehind(parent);
  const author = queryOf(behind?.value ?? null, []);
  const told = wholes.flatMap(({ recipient, tests }) => queryOf(recipient?.value ?? null, tests) ?? []);
  const isLess = author !== null && told.length > 0;
  const recipient = isLess ? { query: [author, ...told].join(' except ') } : (behind?.value ?? null);
  const kind = ctx.kindOf(table);
  return [
    {
      name: ctx.uniqueName(`${kind}_reply`),
      type: 'comment',
      table,
      reason: `${parent.column.name} leads to the ${kind} that it answers`,
      key: ctx.keyOf(table, [ctx.idOf(table) ?? parent.column.name]),
      actor: { value: personSpec(writer), reason: writer.reason },
      object: { value: { kind, id: parent.column.name }, reason: `the ${kind} that is answered` },
      subject: replySubject(ctx, table),
      recipient:
        recipient === null
          ? null
          : {
              value: recipient,
              reason: isLess
                ? 'who wrote what is answered, unless they own the whole and hear of it already'
                : (behind?.reason ?? ''),
            },
      channels: null,
      counter: null,
      include: null,
      when: every(
        { value: `${sqlName(parent.column.name)} is not null`, reason: 'answers only' },
        liveCondition(table),
      ),
      questions: parts.questions,
      reading: null,
    },
  ];
}

function replySubject(ctx: Context, table: Table): SourceDraft['subject'] {
  const id = ctx.idOf(table);
  return id === null ? null : { value: { kind: 'reply', id }, reason: 'the answer itself' };
}

/** The recipient as a query, where it is a path from one column, while the tests hold of the row. */
function queryOf(spec: PersonSpec | null, tests: readonly ColumnTest[]): string | null {
  if (spec === null || typeof spec === 'string' || !tests.every(({ column }) => isParameter(column))) return null;
  const only = tests.length === 0 ? '' : ` and ${allOf(tests, (column) => `:${column}`)}`;
  if ('query' in spec) return `${spec.query}${only}`;
  const [first, ...rest] = spec.path;
  if (first === undefined || !isParameter(first.from ?? '')) return null;
  let value = `h0.${sqlName(first.take)}`;
  const joins = rest.map((hop, i) => {
    const alias = `h${String(i + 1)}`;
    const join = ` join ${hop.table} ${alias} on ${alias}.${sqlName(hop.match)} = ${value}`;
    value = `${alias}.${sqlName(hop.take)}`;
    return join;
  });
  return `select ${value} from ${first.table} h0${joins.join('')} where h0.${sqlName(first.match)} = :${first.from ?? ''}${only}`;
}

function parentOf(ctx: Context, table: Table): Reference | null {
  const own = ctx.references.of(table).filter((reference) => reference.table === table);
  return (
    own.find(
      ({ column }) => /parent|reply|replied|in_?reply|answer/i.test(column.name) && !/root/i.test(column.name),
    ) ?? null
  );
}

/** `path ltree` or text such as 0.12.34: which part is the parent is not for `init` to guess. */
function pathReplies({ ctx, table }: Parts): SourceDraft[] {
  const path = table.columns.find((column) =>
    /^(?:path|lineage|materialized_path|ancestry|tree_path)$/i.test(column.name),
  );
  if (path !== undefined) {
    ctx.ask({
      id: `${tableText(table)}.${path.name}`,
      text: `${tableText(table)}.${path.name} seems to hold the ancestors of a row. Which part is its parent? Until you write a source for answers, only the owner of the whole is told.`,
      choices: [],
      fallback: 'none',
    });
  }
  return [];
}

const POSTS = /^(?:post|status|tweet|note|toot|submission|entry|update)$/;

/** Posts that answer or repeat posts of the same table. */
export function recognisePosts(ctx: Context, table: Table): Found | null {
  if (!POSTS.test(wordsOf(table.name).at(-1) ?? '') || ctx.isPeople(table)) return null;
  const owner = ctx.ownerOf(table);
  const writer = ctx.people.columnsOf(table).find(({ column }) => column.name === owner?.column);
  if (owner === null || writer === undefined) return null;
  const own = ctx.references
    .of(table)
    .filter((reference) => reference.table === table && !/root|thread|original_parent/i.test(reference.column.name));
  const sources = own.flatMap((reference): SourceDraft[] => {
    const words = wordsOf(reference.column.name).join(' ');
    if (/repost|reblog|retweet|renote|boost|quote/.test(words))
      return [again(ctx, table, writer, reference, 'repost', owner.questions)];
    return /reply|replied|parent/.test(words) ? [again(ctx, table, writer, reference, 'comment', owner.questions)] : [];
  });
  return sources.length === 0 ? null : { sources, ignored: null };
}

function again(
  ctx: Context,
  table: Table,
  writer: PersonColumn,
  reference: Reference,
  type: 'comment' | 'repost',
  questions: readonly string[],
): SourceDraft {
  const kind = ctx.kindOf(table);
  const id = ctx.idOf(table);
  const column: Column = reference.column;
  const include = includedOf(table, writer, id);
  const isComment = type === 'comment';
  const counter = isComment
    ? { event: 'comment_update', field: 'comments_count' }
    : { event: 'repost_update', field: 'reposts_count' };
  return {
    name: ctx.uniqueName(`${kind}_${isComment ? 'reply' : 'repost'}`),
    type,
    table,
    reason: `${column.name} leads to the ${kind} that it ${isComment ? 'answers' : 'repeats'}`,
    key: ctx.keyOf(table, id === null ? [writer.column.name, column.name] : [id]),
    actor: { value: personSpec(writer), reason: writer.reason },
    object: {
      value: { kind, id: column.name },
      reason:
        reference.by === 'foreign key'
          ? 'foreign key to the same table'
          : 'by its name and type, there is no foreign key',
    },
    subject: id === null ? null : { value: { kind: isComment ? 'comment' : 'repost', id }, reason: 'the thing itself' },
    recipient: ctx.ownerBehind(reference),
    channels: { value: [`${kind}:{${column.name}}`], reason: 'whoever watches it sees the new ones' },
    counter: ctx.takeCounter(kind, counter.field) ? { value: counter, reason: 'counted by Belfry itself' } : null,
    include:
      isComment && include.length > 1 ? { value: include, reason: 'what those who watch are shown of it' } : null,
    when: every(
      { value: `${sqlName(column.name)} is not null`, reason: isComment ? 'answers only' : 'reposts only' },
      liveCondition(table),
    ),
    questions,
    reading: null,
  };
}
