/** Mentions in a column of the thing itself: an array of people's ids. Pure. */

import { columnOf, tableText, type Table } from './database.js';
import { liveCondition } from './conditions.js';
import type { Context, Owner } from './context.js';
import type { Because, Hop, SourceDraft } from './draft.js';
import { wordsOf } from './words.js';

/** One source for each such column; a question where the column could hold names, or anything. */
export function recogniseMentionLists(ctx: Context, table: Table): SourceDraft[] {
  const columns = table.columns.filter(({ name, array, type }) => isMention(name) && (array || /^jsonb?$/.test(type)));
  const id = ctx.idOf(table);
  if (columns.length === 0 || id === null || ctx.isPeople(table)) return [];
  // Asked last: it may ask a question of its own.
  const owner = ctx.ownerOf(table);
  if (owner === null) return [];
  const { people } = ctx.people;
  const personId = columnOf(people.table, people.id);
  return columns.flatMap((column): SourceDraft[] => {
    if (column.type !== `${personId?.type ?? ''}[]`) {
      ctx.ask({
        id: `${tableText(table)}.${column.name}`,
        text: `What does ${tableText(table)}.${column.name} hold? It looks like mentions, but not like ids of ${tableText(people.table)}, so no source was made of it: write one with recipient: { list: … } or { mentions: … } (docs/configuration.md).`,
        choices: [],
        fallback: 'nothing',
      });
      return [];
    }
    const kind = ctx.kindOf(table);
    return [
      {
        name: ctx.uniqueName(`${kind}_mention`),
        type: 'mention',
        table,
        reason: `"mention" or the like in the name of ${column.name}, which holds ids of people`,
        key: ctx.keyOf(table, [id]),
        actor: actorOf(owner),
        object: { value: { kind, id }, reason: 'the thing itself' },
        subject: null,
        recipient: { value: { list: column.name }, reason: `an array of ids as those of ${tableText(people.table)}` },
        channels: null,
        counter: null,
        include: null,
        when: liveCondition(table),
        questions: owner.questions,
        reading: null,
      },
    ];
  });
}

function isMention(name: string): boolean {
  const words = wordsOf(name);
  return (
    words.includes('mention') ||
    (words.includes('tagged') && words.some((word) => /^(?:user|person|member)$/.test(word)))
  );
}

function actorOf({ column, hops, reason }: Owner): Because<string | { readonly path: readonly Hop[] }> {
  const [first, ...rest] = hops;
  return {
    value: first === undefined ? column : { path: [{ from: column, ...first }, ...rest] },
    reason: `who wrote it: ${reason}`,
  };
}
