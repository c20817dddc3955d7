/** A row with columns for several things, of which it is about one: `post_id` and `comment_id`. Pure. */

import { allOf, type ColumnTest } from './conditions.js';
import type { Context } from './context.js';
import { tableText, type Table } from './database.js';
import type { Because } from './draft.js';
import type { Reference } from './references.js';

export interface OneOfSeveral {
  readonly reference: Reference;
  /** While the row is about this one; null: always. */
  readonly when: Because<string> | null;
  /** What `when` is made of. */
  readonly tests: readonly ColumnTest[];
  readonly questions: readonly string[];
}

/**
 * A like of a comment may name the comment's post too, so a row is about the innermost thing that it names. Where several columns
 * are always filled and none is part of another, names don't tell: asked, with the first as the fallback.
 */
export function severalThings(ctx: Context, table: Table, references: readonly Reference[]): OneOfSeveral[] {
  if (references.length < 2)
    return references.map((reference) => ({ reference, when: null, tests: [], questions: [] }));
  const isWithin = (inner: Reference, outer: Reference): boolean =>
    inner !== outer &&
    ctx.references.of(inner.table).some(({ table: whole }) => whole === outer.table && whole !== inner.table);
  const possible = references.filter(
    (outer) => !references.some((inner) => inner.column.required && isWithin(inner, outer)),
  );
  const always = possible.filter(({ column }) => column.required);
  const question = always.length < 2 ? null : `${tableText(table)}.object`;
  const answer =
    question === null
      ? null
      : ctx.ask({
          id: question,
          text: `What is a row of ${tableText(table)} about? It names several things.`,
          choices: always.map(({ column, table: thing }) => ({
            id: column.name,
            text: `${column.name}, in ${tableText(thing)}`,
          })),
          fallback: always[0]?.column.name ?? null,
        });
  return possible
    .filter((reference) => !always.includes(reference) || question === null || reference.column.name === answer)
    .map((reference) => {
      const inner = possible.filter((other) => isWithin(other, reference));
      const tests = [
        ...(reference.column.required ? [] : [{ column: reference.column.name, test: 'is not null' }]),
        ...inner.map(({ column }) => ({ column: column.name, test: 'is null' })),
      ];
      const when =
        tests.length === 0
          ? null
          : { value: allOf(tests), reason: 'one of several things, the innermost that it names' };
      return { reference, when, tests, questions: question === null ? [] : [question] };
    });
}
