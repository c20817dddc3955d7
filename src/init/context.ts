/**
 * What recognising one table needs to know of the others: who people are, what things are called and whose they are; and where
 * questions are collected.
 */

import { tableKey } from '../capture/catalog.js';
import { isParameter, sqlName, tableText, type Column, type Database, type Table } from './database.js';
import type { Because, Hop, PersonSpec, Question } from './draft.js';
import type { PeopleFinder, PersonColumn } from './people.js';
import { idOf } from './people.js';
import { keyLike, type Reference, type References } from './references.js';
import { COMMENT, has, isContentWord, wordsOf } from './words.js';

/** Whom a thing belongs to: a column of its table that leads to a person, perhaps over the table of what it is part of. */
export interface Owner {
  readonly column: string;
  /** After the column, none if it holds the person's id. */
  readonly hops: readonly Hop[];
  readonly reason: string;
  readonly questions: readonly string[];
}

const FIRST_OWNER =
  /^(?:author|creator|owner|poster|submitter|writer|publisher|artist|seller|host|organi[sz]er|uploader|employer|recruiter|sender)$/;
const OTHER_ROLE = /^(?:editor|moderator|reviewer|assignee|approver|recipient|receiver|target|mentor|winner|accepted)$/;
const AUDIT =
  /(?:updated|edited|modified|approved|moderated|deleted|removed|assigned|reviewed|locked|closed|last|banned|pinned|reply|replied|reported|resolved|shared|reblog|repost|renote|retweet|boost|quote)/;

const CONTAINER =
  /^(?:company|organi[sz]ation|channel|page|shop|store|team|blog|board|publication|podcast|show|playlist|album|artist|author|business|employer)$/;

export class Context {
  readonly questions: Question[] = [];
  private readonly owners = new Map<string, Owner | null>();
  private readonly kinds = new Map<string, string>();
  private readonly names = new Set<string>();
  private readonly shared = new Map<string, string>();
  private readonly counters = new Set<string>();

  constructor(
    readonly database: Database,
    readonly references: References,
    readonly people: PeopleFinder,
    readonly framework: string | null,
    private readonly answers: ReadonlyMap<string, string>,
  ) {}

  /** The answer, else the fallback; null where there is neither. A question is asked once. */
  ask(question: Omit<Question, 'answer'>): string | null {
    const given = this.answers.get(question.id);
    const answer = question.choices.some((choice) => choice.id === given) ? (given ?? null) : null;
    if (!this.questions.some((known) => known.id === question.id)) this.questions.push({ ...question, answer });
    return answer ?? question.fallback;
  }

  isPeople(table: Table): boolean {
    return table === this.people.people.table;
  }

  /**
   * What a row of the table is called: `blog_post` of Django's app blog is a post. No two tables share a kind, or whoever may see the one
   * could see the other: a second post is `hr_post` by its schema, and where that is taken too, `hr_post_2`.
   */
  kindOf(table: Table): string {
    const known = this.kinds.get(tableKey(table));
    if (known !== undefined) return known;
    const named = wordsOf(table.name);
    const words = named.length > 0 ? named : ['thing'];
    const last = words.at(-1) ?? '';
    const full = [...wordsOf(table.schema), ...words];
    const wanted = [isContentWord(last) || COMMENT.has(last) ? [last] : words, words, full].map(kindFrom);
    const taken = new Set(this.kinds.values());
    let kind = wanted.find((name) => !taken.has(name));
    for (let n = 2; kind === undefined; n += 1) {
      const numbered = `${kindFrom(full)}_${String(n)}`;
      if (!taken.has(numbered)) kind = numbered;
    }
    this.kinds.set(tableKey(table), kind);
    return kind;
  }

  /** The table that was called so; null when none was. */
  tableOfKind(kind: string): Table | null {
    const key = [...this.kinds].find(([, name]) => name === kind)?.[0];
    return key === undefined ? null : (this.database.byKey.get(key) ?? null);
  }

  /** Null where nobody can be found, or where too many could be meant. */
  ownerOf(table: Table): Owner | null {
    const key = tableKey(table);
    if (!this.owners.has(key)) this.owners.set(key, this.findOwner(table, 0));
    return this.owners.get(key) ?? null;
  }

  private findOwner(table: Table, depth: number): Owner | null {
    const rank = ({ column }: PersonColumn): number => {
      const words = wordsOf(column.name, { verbs: false });
      const stem = words.filter((word) => !['id', 'uuid', 'did', 'uri', 'key'].includes(word));
      if (AUDIT.test(stem.join(' ')) || OTHER_ROLE.test(stem.at(-1) ?? '')) return 9;
      if (stem.some((word) => FIRST_OWNER.test(word)) || stem.includes('by')) return 1;
      return 2;
    };
    const found = this.people
      .columnsOf(table)
      .map((person) => ({ person, rank: rank(person) }))
      .filter((item) => item.rank < 9)
      .sort((a, b) => a.rank - b.rank)
      .map((item) => item.person);
    const [first] = found;
    if (first === undefined) return depth < 2 ? this.ownerOfContainer(table, depth) : null;
    if (found.length === 1) return owner(first, []);
    const id = `${tableText(table)}.owner`;
    const answer = this.ask({
      id,
      text: `Whose is a row of ${tableText(table)}: who is told of what happens to it?`,
      choices: found.map(({ column }) => ({ id: column.name, text: `the person in ${column.name}` })),
      fallback: first.column.name,
    });
    return owner(found.find(({ column }) => column.name === answer) ?? first, [id]);
  }

  /** A job of a company, a video of a channel: whose the whole is. */
  private ownerOfContainer(table: Table, depth: number): Owner | null {
    const wholes = this.references
      .of(table)
      .filter((reference) => reference.table !== table && CONTAINER.test(wordsOf(reference.table.name).at(-1) ?? ''));
    const [whole] = wholes;
    if (whole === undefined || wholes.length > 1 || whole.pairs.length > 1) return null;
    const above = this.findOwner(whole.table, depth + 1);
    if (above === null) return null;
    const hop = { table: tableText(whole.table), match: whole.match, take: above.column };
    return {
      column: whole.column.name,
      hops: [hop, ...above.hops],
      reason: `through ${tableText(whole.table)}.${above.column}`,
      questions: above.questions,
    };
  }

  /** Who is told of what happens to the thing that the reference leads to. Null where nobody is known. */
  ownerBehind(reference: Reference): (Because<PersonSpec> & { readonly questions: readonly string[] }) | null {
    const owner = this.ownerOf(reference.table);
    if (owner === null) return null;
    const reason = `whose the ${this.kindOf(reference.table)} is: ${owner.column}, ${owner.reason}`;
    if (reference.pairs.length > 1 && !reference.pairs.every(([from]) => isParameter(from))) return null;
    if (reference.pairs.length > 1)
      return { value: { query: ownerQuery(reference, owner) }, reason, questions: owner.questions };
    const first = {
      from: reference.column.name,
      table: tableText(reference.table),
      match: reference.match,
      take: owner.column,
    };
    return { value: { path: [first, ...owner.hops] }, reason, questions: owner.questions };
  }

  /** References to things that could be liked or commented on: whose row is somebody's. */
  thingsOf(table: Table): Reference[] {
    return this.references.of(table).filter((reference) => {
      if (reference.table === table || this.isPeople(reference.table)) return false;
      return this.people.columnOf(table, reference.column) === null;
    });
  }

  /**
   * `subject`, `target_id`: a thing without a foreign key and without a name of its own. Asked about, since any thing with an id of
   * that type could be meant.
   */
  looseThingOf(table: Table): { readonly reference: Reference; readonly question: string } | null {
    const column = table.columns.find(
      (candidate) =>
        /^(?:subject|target|object|item|entity|content)_?(?:id|uri|uuid)?$/i.test(candidate.name) &&
        this.references.ofColumn(table, candidate.name) === null &&
        this.people.columnOf(table, candidate) === null,
    );
    if (column === undefined) return null;
    const candidates = this.database.tables.flatMap((thing): Reference[] => {
      if (thing === table || this.isPeople(thing) || !isContentWord(lastWord(thing)) || this.ownerOf(thing) === null)
        return [];
      const match = keyLike(thing, column);
      return match === null ? [] : [{ column, table: thing, match, pairs: [[column.name, match]], by: 'name' }];
    });
    const [first] = candidates;
    if (first === undefined) return null;
    const question = `${tableText(table)}.${column.name}`;
    const answer = this.ask({
      id: question,
      text: `What does ${question} lead to? There is no foreign key.`,
      choices: candidates.map(({ table: thing, match }) => ({
        id: tableText(thing),
        text: `${tableText(thing)}.${sqlName(match)}`,
      })),
      fallback: tableText(first.table),
    });
    return { reference: candidates.find(({ table: thing }) => tableText(thing) === answer) ?? first, question };
  }

  /** Columns that tell rows apart: the wanted ones where they are unique together, else the table's own key. */
  keyOf(table: Table, wanted: readonly string[]): Because<readonly string[]> {
    const natural = table.uniques.find(
      (unique) => unique.length > 0 && unique.every((column) => wanted.includes(column)),
    );
    if (natural !== undefined)
      return { value: natural, reason: natural === table.primaryKey ? 'primary key' : 'unique together' };
    if (table.primaryKey !== null) return { value: table.primaryKey, reason: 'primary key' };
    const [other] = table.uniques;
    if (other !== undefined) return { value: other, reason: 'unique' };
    return { value: wanted, reason: 'the table has no key; these columns are taken to tell rows apart' };
  }

  idOf(table: Table): string | null {
    return idOf(table);
  }

  /** Readings of one question share a name, since only one of them will be used: `shared` says which. */
  uniqueName(wanted: string, shared: string | null = null): string {
    const known = shared === null ? undefined : this.shared.get(`${shared} ${wanted}`);
    if (known !== undefined) return known;
    const base = wanted.slice(0, 44);
    let name = base;
    for (let n = 2; this.names.has(name); n += 1) name = `${base}_${String(n)}`;
    this.names.add(name);
    if (shared !== null) this.shared.set(`${shared} ${wanted}`, name);
    return name;
  }

  /** Whether a counter's field is still free on things of a kind; takes it. */
  takeCounter(kind: string, field: string): boolean {
    const key = `${kind} ${field}`;
    if (this.counters.has(key)) return false;
    this.counters.add(key);
    return true;
  }
}

function owner(person: PersonColumn, questions: readonly string[]): Owner {
  const hops = person.hops.map(({ table, match, take }) => ({ table, match, take }));
  return { column: person.column.name, hops, reason: person.reason, questions };
}

function ownerQuery(reference: Reference, owner: Owner): string {
  const where = reference.pairs.map(([from, to]) => `t.${sqlName(to)} = :${from}`).join(' and ');
  let value = `t.${sqlName(owner.column)}`;
  const joins = owner.hops.map((hop, i) => {
    const join = ` join ${hop.table} h${String(i)} on h${String(i)}.${sqlName(hop.match)} = ${value}`;
    value = `h${String(i)}.${sqlName(hop.take)}`;
    return join;
  });
  return `select ${value} from ${tableText(reference.table)} t${joins.join('')} where ${where}`;
}

/** Of at most 40 letters, so that a number fits behind it: config/fields.ts takes 48. */
function kindFrom(words: readonly string[]): string {
  const kind = words.join('_').replace(/^[^a-z]+/, '');
  return kind.slice(0, 40) || 'thing';
}

/** `likeable_type` with `likeable_id`; or Django's `content_type_id` with `object_id`. */
export interface Polymorphic {
  readonly type: Column;
  readonly id: Column;
  readonly stem: string;
}

export function polymorphicOf(table: Table): Polymorphic | null {
  for (const type of table.columns) {
    const match = /^(.+?)_?(?:type|Type|kind|Kind)$/.exec(type.name);
    const stem = match?.[1];
    if (stem === undefined || (type.category !== 'S' && type.category !== 'E' && type.category !== 'N')) continue;
    const id = table.columns.find((column) => new RegExp(`^${stem}_?(?:id|uuid)$`, 'i').test(column.name));
    if (id !== undefined) return { type, id, stem };
  }
  const type = table.columns.find((column) => column.name === 'content_type_id');
  const id = table.columns.find((column) => column.name === 'object_id' || column.name === 'object_pk');
  return type !== undefined && id !== undefined ? { type, id, stem: 'content_object' } : null;
}

export function lastWord(table: Table): string {
  return wordsOf(table.name).at(-1) ?? '';
}

export function isAbout(table: Table, set: ReadonlySet<string>): boolean {
  return has(wordsOf(table.name), set);
}
