/** Who people are: the table of users, and how any column of the database leads to one of them. Pure. */

import type { TableName } from '../postgres/sql.js';
import { areAlike, columnOf, sqlName, tableText, type Column, type Database, type Table } from './database.js';
import type { Because, Hop, PeopleDraft } from './draft.js';
import { stemOf, type Reference, type References } from './references.js';
import { has, NOISE, wordsOf } from './words.js';

/** A column that leads to a person. */
export interface PersonColumn {
  readonly column: Column;
  /** Over other tables to the person's id; none if the column holds it. */
  readonly hops: readonly Hop[];
  readonly reason: string;
  readonly byName: boolean;
}

export interface People {
  readonly table: Table;
  readonly id: string;
}

const CREDENTIALS =
  /^(?:e_?mail|user_?name|login|handle|nick(?:name)?|screen_?name|(?:encrypted_|hashed_)?password(?:_?(?:hash|digest))?|full_?name|display_?name|name|first_?name)$/i;

const PERSONAL =
  /^(?:e_?mail|user_?name|login|handle|nick_?name|screen_?name|(?:encrypted_|hashed_)?password(?:_?(?:hash|digest))?|full_?name|display_?name|first_?name|user_?id)$/i;

const CALLED_USER = 32;

/** Points for the name of a table: how sure it is that its rows are the people of the application. */
const NAMES: readonly (readonly [RegExp, number])[] = [
  [/^(?:auth )?user$/, 50],
  [/^account$/, 40],
  [/^(?:member|person|user account|actor)$/, 35],
  // `accounts_customuser` of Django, too.
  [/user$/, CALLED_USER],
  [/^(?:profile|user profile|author|player|customer)$/, 25],
  [/ (?:member|person|profile|account|author)$/, 15],
];

/** Tables whose rows are people, the likeliest first; never tables that join two things. */
export function peopleCandidates(database: Database, references: References): Table[] {
  const points = (table: Table): number => {
    const words = wordsOf(table.name);
    const name =
      NAMES.find(([pattern]) => pattern.test(words.join(' ')))?.[1] ??
      (isCalledUser(table, references) ? CALLED_USER : 0);
    // An account may be a customer of many users: it is a person where it has what only a person has.
    if (
      /^(?:account|customer|member|actor|author)$/.test(words.at(-1) ?? '') &&
      !table.columns.some((column) => PERSONAL.test(column.name))
    )
      return 0;
    if (name === 0 || has(words.slice(0, -1), NOISE)) return 0;
    if (!table.uniques.some((unique) => unique.length === 1)) return 0;
    const credentials = table.columns.filter((column) => CREDENTIALS.test(column.name)).length;
    const joins = references.of(table).filter((reference) => reference.table !== table).length;
    if (joins > 1 && credentials === 0) return 0;
    return (
      name +
      5 * Math.min(credentials, 4) +
      3 * Math.min(references.to(table).length, 10) -
      (table.schema === 'public' ? 0 : 1)
    );
  };
  return database.tables
    .map((table) => ({ table, points: points(table) }))
    .filter((item) => item.points > 0)
    .sort((a, b) => b.points - a.points)
    .map((item) => item.table);
}

/** Whatever the table's own name, in whatever language: a `user_id` of another table leads there. */
function isCalledUser(table: Table, references: References): boolean {
  return references.to(table).some(({ column, by }) => by === 'foreign key' && stemOf(column.name)?.at(-1) === 'user');
}

/** The candidate that this one belongs to: `profiles.user_id` → users, `users.account_id` → accounts. */
export function belongsTo(table: Table, candidates: readonly Table[], references: References): Reference | null {
  return (
    references.of(table).find((reference) => reference.table !== table && candidates.includes(reference.table)) ?? null
  );
}

const ROLES =
  /^(?:user|account|member|person|author|creator|owner|sender|receiver|recipient|follower|followed|followee|following|blocker|blocked|muter|muted|requester|addressee|friend|actor|voter|liker|poster|writer|subscriber|target|from|to|applicant|candidate|inviter|invitee|initiator)$/;

const VERB_ROLES =
  /^(?:follower|followed|followee|following|blocker|blocked|muter|muted|requester|addressee|sender|receiver|recipient|liker|voter|subscriber|friend)$/;

export class PeopleFinder {
  constructor(
    readonly people: People,
    private readonly candidates: readonly Table[],
    private readonly references: References,
  ) {}

  /** Columns of the table that lead to people, in their order. */
  columnsOf(table: Table): PersonColumn[] {
    return table.columns.flatMap((column) => this.columnOf(table, column) ?? []);
  }

  columnOf(table: Table, column: Column): PersonColumn | null {
    if (column.virtual || table === this.people.table) return null;
    const reference = this.references.ofColumn(table, column.name);
    if (reference === null) return this.byRole(table, column);
    const person = this.over(reference, 0);
    // `follower_id` beside a table `followers` is the person who follows, not a row of that table.
    const isRole = reference.by === 'name' && VERB_ROLES.test(wordsOf(column.name, { verbs: false }).at(-2) ?? '');
    return person ?? (isRole ? this.byRole(table, column) : null);
  }

  private over(reference: Reference, depth: number): PersonColumn | null {
    const { column, table, match, by } = reference;
    const byName = by === 'name';
    const how = byName ? 'by its name and type, there is no foreign key' : `foreign key to ${tableText(table)}`;
    if (table === this.people.table) {
      const hops =
        match === this.people.id ? [] : [{ from: column.name, table: tableText(table), match, take: this.people.id }];
      return { column, hops, byName, reason: hops.length === 0 ? how : `${how}.${match}, not its id` };
    }
    // A shared key the other way round: people are profiles, and this leads to the users whose ids they have.
    const own = this.references.ofColumn(this.people.table, this.people.id);
    if (own?.table === table && own.match === match)
      return { column, hops: [], byName, reason: `${how}, whose id is the person's too` };
    if (depth > 1 || !this.candidates.includes(table)) return null;
    const next = belongsTo(table, this.candidates, this.references);
    const further = next === null ? null : this.over(next, depth + 1);
    if (next === null || further === null) return null;
    // A shared key: the profile's id is the person's.
    if (next.column.name === match && further.hops.length === 0) return { column, hops: [], byName, reason: how };
    const hop = { from: column.name, table: tableText(table), match, take: next.column.name };
    const rest = further.hops.map(({ table: to, match: on, take }) => ({ table: to, match: on, take }));
    return { column, hops: [hop, ...rest], byName, reason: `${how}, whose ${next.column.name} is the person` };
  }

  /** `creator text` where people have text ids: a role, without a foreign key. */
  private byRole(table: Table, column: Column): PersonColumn | null {
    if (table.foreignKeys.some((key) => key.columns.includes(column.name))) return null;
    const id = columnOf(this.people.table, this.people.id);
    if (id === null || !areAlike(id, column) || isOwnKey(table, column)) return null;
    const words = wordsOf(column.name, { verbs: false });
    const suffix = ['id', 'uuid', 'did', 'uri', 'key', this.people.id.toLowerCase()];
    const named = words.length > 1 && suffix.includes(words.at(-1) ?? '');
    const stem = named ? words.slice(0, -1) : words;
    const role = stem.at(-1) ?? '';
    const refers =
      ROLES.test(role) && (named || !['from', 'to', 'target', 'user', 'account', 'person', 'member'].includes(role));
    // `created_by`, `subjectDid`: the suffix is the name of the people's key.
    const isBy = role === 'by';
    const isKey = this.people.id !== 'id' && words.length > 1 && words.at(-1) === this.people.id.toLowerCase();
    if (!refers && !isBy && !isKey) return null;
    return { column, hops: [], byName: true, reason: 'by its name and type, there is no foreign key' };
  }
}

function isOwnKey(table: Table, column: Column): boolean {
  return table.primaryKey?.length === 1 && table.primaryKey[0] === column.name;
}

export function idOf(table: Table): string | null {
  const primary = table.primaryKey?.length === 1 ? table.primaryKey[0] : undefined;
  return primary ?? table.uniques.find((unique) => unique.length === 1)?.[0] ?? null;
}

/** Actor or recipient as the config says it. */
export function personSpec(person: PersonColumn): string | { path: Hop[] } {
  return person.hops.length === 0 ? person.column.name : { path: [...person.hops] };
}

export function describePeople(people: People, reason: string): PeopleDraft {
  const { table, id } = people;
  return {
    table: { value: { schema: table.schema, name: table.name } satisfies TableName, reason },
    id: { value: id, reason: table.primaryKey?.includes(id) ? 'primary key' : 'unique' },
    name: firstOf(
      table,
      [
        /^display_?name$/i,
        /^full_?name$/i,
        /^name$/i,
        /^screen_?name$/i,
        /^user_?name$/i,
        /^handle$/i,
        /^nick_?name$/i,
        /^login$/i,
        /^first_?name$/i,
      ],
      'S',
      'the name that others see',
    ),
    enabled: firstOf(
      table,
      [
        /^notifications?_?enabled$/i,
        /^(?:enable|wants|receives?|allow)_?notifications?$/i,
        /^notify$/i,
        /^push_?enabled$/i,
      ],
      'B',
      'boolean, by its name',
    ),
    active: activeOf(table),
    locale: firstOf(table, [/^locale$/i, /^(?:preferred_?)?lang(?:uage)?(?:_?code)?$/i], 'S', 'by its name'),
  };
}

function firstOf(table: Table, names: readonly RegExp[], category: string, reason: string): Because<string> | null {
  for (const name of names) {
    const column = table.columns.find((c) => name.test(c.name) && c.category === category && !c.array);
    if (column !== undefined) return { value: column.name, reason };
  }
  return null;
}

function activeOf(table: Table): Because<string> | null {
  const parts = table.columns.flatMap((column) => {
    const name = sqlName(column.name);
    if (
      column.category === 'D' &&
      /^(?:deleted|suspended|banned|deactivated|disabled|discarded|removed)_?(?:at|on)$/i.test(column.name)
    )
      return [`${name} is null`];
    if (column.category !== 'B') return [];
    if (/^(?:is_?)?(?:deleted|suspended|banned|deactivated|disabled|removed)$/i.test(column.name))
      return [`${name} is not true`];
    return /^(?:is_?)?(?:active|enabled)$/i.test(column.name) ? [`${name} is true`] : [];
  });
  if (parts.length === 0) return null;
  return { value: parts.join(' and '), reason: 'by the names of these columns: the others are gone or suspended' };
}
