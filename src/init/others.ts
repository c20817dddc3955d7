/** Mentions and job applications. Pure. */

import { meaningsOf, quoted, sqlName, tableText, valuesOf, defaultText, type Table } from './database.js';
import { liveCondition, every } from './conditions.js';
import { polymorphicOf, type Context } from './context.js';
import { directionOf } from './directions.js';
import type { Because, PersonSpec, SourceDraft } from './draft.js';
import { targetsOf, type Found } from './likes.js';
import { personSpec, type PersonColumn } from './people.js';
import { severalThings } from './several.js';
import { APPLICATION, has, JOB, MENTION, NOISE, wordsOf } from './words.js';

/** Null when the table is nothing of the kind. */
export function recogniseMentions(ctx: Context, table: Table): Found | null {
  const words = wordsOf(table.name);
  if (!has(words, MENTION) || has(words, NOISE)) return null;
  const people = ctx.people.columnsOf(table);
  const [first] = people;
  if (first === undefined) return null;
  const direction = people.length === 2 ? directionOf(people, words) : null;
  if (people.length > 1 && direction === null) return { sources: [], ignored: 'who mentions whom is not clear' };
  const mentioned = direction?.target ?? first;

  const polymorphic = polymorphicOf(table);
  if (polymorphic !== null) {
    const sources = targetsOf(ctx, table, polymorphic).map((target) =>
      mention(ctx, table, mentioned, {
        kind: target.kind,
        id: polymorphic.id.name,
        reason: `${polymorphic.type.name} says what it is`,
        writer: actorSpec(direction?.actor ?? null, target.recipient),
        when: target.when,
      }),
    );
    return { sources, ignored: sources.length === 0 ? 'nothing is found in which people could be mentioned' : null };
  }
  const things = ctx.thingsOf(table).filter((reference) => ctx.ownerOf(reference.table) !== null);
  if (things.length === 0) return { sources: [], ignored: 'who wrote what mentions them is not found' };
  return {
    sources: severalThings(ctx, table, things).map(({ reference, when, questions }) => ({
      ...mention(ctx, table, mentioned, {
        kind: ctx.kindOf(reference.table),
        id: reference.column.name,
        reason: `leads to ${tableText(reference.table)}`,
        writer: actorSpec(direction?.actor ?? null, ctx.ownerBehind(reference)),
        when,
      }),
      questions,
    })),
    ignored: null,
  };
}

/** The column of who mentions, else whoever wrote the thing. A query can't be an actor. */
function actorSpec(person: PersonColumn | null, writer: Because<PersonSpec> | null): SourceDraft['actor'] {
  if (person !== null) return { value: personSpec(person), reason: person.reason };
  if (writer === null || (typeof writer.value === 'object' && 'query' in writer.value)) return null;
  return { value: writer.value, reason: `who wrote it: ${writer.reason}` };
}

interface Mentioning {
  readonly kind: string;
  readonly id: string;
  readonly reason: string;
  readonly writer: SourceDraft['actor'];
  readonly when: Because<string> | null;
}

function mention(
  ctx: Context,
  table: Table,
  mentioned: PersonColumn,
  { kind, id, reason, writer, when }: Mentioning,
): SourceDraft {
  return {
    name: ctx.uniqueName(`${kind}_mention`),
    type: 'mention',
    table,
    reason: '"mention" in its name, a person and a thing',
    key: ctx.keyOf(table, [mentioned.column.name, id]),
    actor: writer,
    object: { value: { kind, id }, reason },
    subject: null,
    recipient: { value: personSpec(mentioned), reason: mentioned.reason },
    channels: null,
    counter: null,
    include: null,
    when: every(when, silentCondition(table), liveCondition(table)),
    questions: [],
    reading: null,
  };
}

// Mastodon's `silent`: a mention that should not be told of.
function silentCondition(table: Table): Because<string> | null {
  const column = table.columns.find(({ name, category }) => name === 'silent' && category === 'B');
  return column === undefined ? null : { value: 'silent is not true', reason: 'a boolean, by its name' };
}

const FIRST = /^(?:pending|new|submitted|applied|received|draft|open|sent|0)$/i;

/** Null when the table is nothing of the kind. */
export function recogniseApplications(ctx: Context, table: Table): Found | null {
  const words = wordsOf(table.name);
  if (!has(words.slice(-1), APPLICATION)) return null;
  const job = ctx.thingsOf(table).find((reference) => has(wordsOf(reference.table.name), JOB));
  const people = ctx.people.columnsOf(table);
  const applicant =
    people.find(({ column }) => /applicant|candidate|user|member|profile|account|person/i.test(column.name)) ??
    people[0];
  if (job === undefined || applicant === undefined) return null;
  const recipient = ctx.ownerBehind(job);
  const id = ctx.idOf(table);
  const key = ctx.keyOf(table, id === null ? [applicant.column.name, job.column.name] : [id]);
  const base = {
    table,
    key,
    object: { value: { kind: ctx.kindOf(job.table), id: job.column.name }, reason: `leads to ${tableText(job.table)}` },
    subject: id === null ? null : { value: { kind: 'application', id }, reason: 'the application itself' },
    channels: null,
    counter: null,
    include: null,
    reading: null,
  };
  const received: SourceDraft = {
    ...base,
    name: ctx.uniqueName('application_received'),
    type: 'application_received',
    reason: 'a person applies for a job',
    actor: { value: personSpec(applicant), reason: applicant.reason },
    recipient,
    when: liveCondition(table),
    questions: recipient?.questions ?? [],
  };
  const answered = answeredOf(ctx, table).map(({ when, questions, reading }): SourceDraft => ({
    ...base,
    name: ctx.uniqueName('job_application', reading === null ? null : tableText(table)),
    type: 'job_application',
    reason: 'the application is answered: who applied is told',
    actor: null,
    recipient: { value: personSpec(applicant), reason: applicant.reason },
    when: every(when, liveCondition(table)),
    questions,
    reading,
  }));
  const sources = [...(recipient === null ? [] : [received]), ...answered];
  return { sources, ignored: sources.length === 0 ? 'nobody is found whose the job is' : null };
}

type Answered = Pick<SourceDraft, 'when' | 'questions' | 'reading'>;

/** While an application has any other state than its first; a reading for each that could be the first, where nothing says which is. */
function answeredOf(ctx: Context, table: Table): Answered[] {
  const column = table.columns.find(({ name }) => /(?:^|_)(?:status|state|stage)$/i.test(name));
  if (column === undefined) return [];
  const name = sqlName(column.name);
  const literal = (value: string): string => (column.integer ? value : quoted(value));
  const values = valuesOf(table, column);
  const initial =
    defaultText(column) ??
    (column.labels === null ? [...meaningsOf(column)].find(([word]) => FIRST.test(word))?.[1] : undefined) ??
    values?.find((value) => FIRST.test(value));
  if (initial !== undefined) {
    const when = { value: `${name} <> ${literal(initial)}`, reason: `any but the first, which is ${initial}` };
    return [{ when, questions: [], reading: null }];
  }
  const id = `${tableText(table)}.${column.name}`;
  const text = `Which value has ${id} before an application is answered? Nothing in the schema says.`;
  if (values === null && (column.integer || column.category === 'S')) {
    ctx.ask({ id, text, choices: [], fallback: 'pending' });
    const when = { value: `${name} <> ${column.integer ? '0' : quoted('pending')}`, reason: 'see the question' };
    return [{ when, questions: [id], reading: null }];
  }
  const readings =
    values?.map((value) => [value, `${name} <> ${literal(value)}`] as const) ??
    (column.category === 'B'
      ? ([
          ['false', `${name} is true`],
          ['null', `${name} is not null`],
        ] as const)
      : []);
  const answer = ctx.ask({
    id,
    text,
    choices: readings.map(([choice, sql]) => ({ id: choice, text: `${choice}; answered while ${sql}` })),
    fallback: readings.length === 0 ? 'none' : null,
  });
  return readings
    .filter(([choice]) => answer === null || choice === answer)
    .map(([choice, sql]) => ({
      when: { value: sql, reason: answer === null ? 'one reading' : 'as answered' },
      questions: [id],
      reading: answer === null ? { question: id, choice } : null,
    }));
}
