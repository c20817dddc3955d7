/**
 * What columns refer to: by foreign key, or, where there is none, by a name that says so and a type that fits.
 *
 * Pure. A composite key counts as the reference of its most telling column; the others are kept, since one of them alone may not be unique.
 */

import { areAlike, columnOf, isUnique, type Column, type Database, type Table } from './database.js';
import { tableKey } from '../capture/catalog.js';
import { wordsOf } from './words.js';

export interface Reference {
  readonly column: Column;
  readonly table: Table;
  readonly match: string;
  /** All columns of the key with what they equal; one pair unless it is composite and `match` alone is not unique. */
  readonly pairs: readonly (readonly [from: string, to: string])[];
  readonly by: 'foreign key' | 'name';
}

export class References {
  private readonly known = new Map<string, readonly Reference[]>();

  constructor(private readonly database: Database) {}

  /** Of all columns of a table, in their order. */
  of(table: Table): readonly Reference[] {
    const key = tableKey(table);
    let found = this.known.get(key);
    if (found === undefined) {
      found = table.columns.flatMap((column) => this.find(table, column) ?? []);
      this.known.set(key, found);
    }
    return found;
  }

  ofColumn(table: Table, column: string): Reference | null {
    return this.of(table).find((reference) => reference.column.name === column) ?? null;
  }

  /** Of columns of other tables that refer to it. */
  to(table: Table): readonly Reference[] {
    return this.database.tables
      .filter((other) => other !== table)
      .flatMap((other) => this.of(other).filter((reference) => reference.table === table));
  }

  private find(table: Table, column: Column): Reference | null {
    if (column.virtual) return null;
    const keys = table.foreignKeys.filter((key) => key.columns.includes(column.name));
    for (const key of [...keys].sort((a, b) => a.columns.length - b.columns.length)) {
      const target = this.database.byKey.get(tableKey({ schema: key.schema, name: key.table }));
      if (target === undefined || mostTelling(key.columns) !== column.name) continue;
      const match = key.references[key.columns.indexOf(column.name)] ?? '';
      const all = key.columns.map((from, i) => [from, key.references[i] ?? ''] as const);
      return {
        column,
        table: target,
        match,
        pairs: isUnique(target, [match]) ? [[column.name, match]] : all,
        by: 'foreign key',
      };
    }
    return keys.length > 0 ? null : this.byName(table, column);
  }

  private byName(table: Table, column: Column): Reference | null {
    const stem = stemOf(column.name);
    if (stem === null) return null;
    const candidates = isParent(stem) ? [table] : this.named(table, stem);
    for (const target of candidates) {
      const match = keyLike(target, column);
      if (match === null || (target === table && match === column.name)) continue;
      return { column, table: target, match, pairs: [[column.name, match]], by: 'name' };
    }
    return null;
  }

  /** Tables that the words of a column name, the likeliest first: those of the same schema, then those with the closest name. */
  private named(table: Table, stem: readonly string[]): Table[] {
    const fit = (candidate: Table): number => {
      const words = wordsOf(candidate.name);
      if (words.join() === stem.join()) return 3;
      if (endsWith(words, stem)) return 2;
      return endsWith(stem, words) ? 1 : 0;
    };
    return this.database.tables
      .map((candidate) => ({ candidate, fit: fit(candidate), near: candidate.schema === table.schema ? 1 : 0 }))
      .filter((item) => item.fit > 0)
      .sort((a, b) => b.near - a.near || b.fit - a.fit)
      .map((item) => item.candidate);
  }
}

/** `post_id` gives post, `replyParent` gives reply parent; null for a name that does not say that it refers to anything. */
export function stemOf(name: string): string[] | null {
  const words = wordsOf(name);
  const suffixes = ['id', 'uuid', 'guid', 'uri', 'did', 'key', 'fk', 'ref', 'pk', 'ulid'];
  const stem = [...words];
  while (stem.length > 1 && suffixes.includes(stem.at(-1) ?? '')) stem.pop();
  if (stem.length < words.length) return stem;
  return isParent(words) ? words : null;
}

/** Names of what a row of the same table comes under or answers to. */
function isParent(words: readonly string[]): boolean {
  return /^(?:parent|(?:in )?reply(?:ing)? to|reply parent|parent reply|replied to|quote|quote of|(?:repost|reblog|retweet|renote|boost)(?: of)?|(?:reposted|retweeted|reblogged) from)$/.test(
    words.join(' '),
  );
}

/** The column of a table whose values such a column could hold: the primary key if it is one column, else another unique one. */
export function keyLike(target: Table, column: Column): string | null {
  for (const unique of target.uniques) {
    const only = unique.length === 1 ? columnOf(target, unique[0] ?? '') : null;
    if (only !== null && areAlike(only, column) && !/mail|slug|token|phone/i.test(only.name)) return only.name;
  }
  return null;
}

// Of a composite key: not the tenant, which every table has.
function mostTelling(columns: readonly string[]): string {
  const telling = columns.filter((column) => !/tenant|org|workspace|instance|site/i.test(column));
  return telling.at(-1) ?? columns.at(-1) ?? '';
}

function endsWith(words: readonly string[], end: readonly string[]): boolean {
  return end.length > 0 && words.length >= end.length && words.slice(-end.length).join() === end.join();
}
