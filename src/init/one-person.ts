/** One person in a row that speaks of following or muting: whom or what they follow, which thread they mute. Pure. */

import { columnOf, quoted, sqlName, tableText, type Column, type Table } from './database.js';
import { every, statusOf } from './conditions.js';
import { polymorphicOf, type Context } from './context.js';
import type { Direction } from './directions.js';
import { spellings } from './likes.js';
import { isUnnameable, nothing, pair, unnameable, type FoundPairs, type Parts, type Verb } from './pair-drafts.js';
import { personSpec, type PersonColumn } from './people.js';
import { wordsOf } from './words.js';

/** A channel, a page, an artist that somebody owns may be followed; topics and plans are nobody's. */
export function onePerson(ctx: Context, table: Table, verb: Verb, person: PersonColumn | undefined): FoundPairs | null {
  if (person === undefined) return null;
  if (verb === 'mute' || verb === 'block') return threadMute(ctx, table, verb, person);
  if (verb !== 'follow') return null;
  const polymorphic = polymorphicOf(table);
  if (polymorphic !== null) return followOfPeople(ctx, table, person);
  const things = ctx
    .thingsOf(table)
    .filter((reference) =>
      /^(?:channel|page|blog|publication|podcast|shop|store|artist|author|show|playlist|company)$/.test(
        wordsOf(reference.table.name).at(-1) ?? '',
      ),
    );
  const [thing] = things;
  const recipient = thing === undefined ? null : ctx.ownerBehind(thing);
  if (thing === undefined || recipient === null || things.length > 1)
    return nothing('one person, and no person is found whom they follow');
  const parts: Parts = {
    ctx,
    table,
    direction: { actor: person, target: person, reason: '' },
    reading: null,
    questions: recipient.questions,
  };
  const kind = ctx.kindOf(thing.table);
  const draft = pair(
    parts,
    'follow',
    parts.direction,
    null,
    `"follow" or the like in its name, a person and a ${kind}`,
  );
  return {
    sources: [
      {
        ...draft,
        key: ctx.keyOf(table, [person.column.name, thing.column.name]),
        actor: { value: personSpec(person), reason: person.reason },
        recipient: { value: recipient.value, reason: recipient.reason },
      },
    ],
    pairs: [],
    ignored: null,
  };
}

/** `followable_type` and `followable_id`, perhaps `follower_type` and `follower_id` too: where both are people. */
function followOfPeople(ctx: Context, table: Table, person: PersonColumn): FoundPairs {
  const { table: people, id } = ctx.people.people;
  const own = columnOf(people, id);
  const typeOf = (column: Column): Column | undefined =>
    columnOf(table, column.name.replace(/_id$/, '_type').replace(/Id$/, 'Type')) ?? undefined;
  const followed = table.columns.find(
    (column) =>
      column.name !== person.column.name &&
      /able_?id$/i.test(column.name) &&
      typeOf(column) !== undefined &&
      typeOf(column) !== column,
  );
  if (followed === undefined || own === null || (own.category !== followed.category && followed.category !== 'S'))
    return nothing('what is followed can be of several kinds, people not among them');
  const types = [typeOf(followed), typeOf(person.column)].filter((column) => column !== undefined);
  const list = spellings(people).map(quoted).join(', ');
  const when = {
    value: types.map(({ name }) => `${sqlName(name)} in (${list})`).join(' and '),
    reason: `every spelling that is customary for ${tableText(people)}`,
  };
  const target: PersonColumn = {
    column: followed,
    hops: [],
    reason: `${types[0]?.name ?? ''} says that it is a person`,
    byName: true,
  };
  const direction: Direction = { actor: person, target, reason: 'who follows, and what can be followed' };
  const status = statusOf(table);
  const accepted =
    status === null || 'unknown' in status || status.accepted === null
      ? null
      : { value: status.accepted, reason: `accepted, ${status.reason}` };
  const draft = pair(
    { ctx, table, direction, reading: null, questions: [] },
    'follow',
    direction,
    every(when, accepted),
    '"follow" or the like in its name',
  );
  return {
    sources: [
      {
        ...draft,
        key: ctx.keyOf(
          table,
          table.columns
            .filter(
              ({ name }) =>
                types.some((type) => type.name === name) || name === followed.name || name === person.column.name,
            )
            .map(({ name }) => name),
        ),
      },
    ],
    pairs: [],
    ignored: null,
  };
}

function threadMute(ctx: Context, table: Table, verb: Verb, person: PersonColumn): FoundPairs | null {
  const [thing] = ctx.thingsOf(table);
  if (verb !== 'mute' || thing === undefined) return null;
  if (isUnnameable(ctx, table, 'threadMutes', [person])) return unnameable;
  return {
    sources: [],
    pairs: [
      {
        section: 'threadMutes',
        table,
        reason: `"mute" in its name, a person and a ${ctx.kindOf(thing.table)}`,
        fields: {
          user: { value: person.column.name, reason: person.reason },
          kind: { value: ctx.kindOf(thing.table), reason: `what ${thing.column.name} leads to` },
          id: { value: thing.column.name, reason: `leads to ${tableText(thing.table)}` },
        },
        questions: [],
        reading: null,
      },
    ],
    ignored: null,
  };
}
