/**
 * Loads what the privacy rules judge by, for a whole batch in one statement over the application's own tables.
 *
 * Ids arrive as text. A text that does not fit the type of a column (`'abc'` for a bigint) is left out before it is sent:
 * nobody has that id, so nothing is found for it, and the statement cannot fail on it.
 */

import type pg from 'pg';
import { textArray } from '../../postgres/arrays.js';
import type { Config, RelationConfig, Source } from '../../config.js';
import { readableSql } from '../../inbox/readable.js';
import type { Readable } from '../../inbox/readable.js';
import { quoteIdent, quoteLiteral, quoteTable } from '../../postgres/sql.js';
import type { Person } from '../../rules/event.js';
import { directedKey, hiddenKey, ownerKey, threadKey } from '../../rules/privacy.js';
import type { Delivery, PrivacyFacts } from '../../rules/privacy.js';
import { cast, fitting, holdingRows, personColumn } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';
import { loadOwners } from '../../schema/owners.js';
import type { Owners } from '../../schema/owners.js';
import { assertNothingHidden } from '../../schema/row-security.js';
import { bindVisible } from '../../schema/visible.js';

/** A delivery that is asked about, with the source it comes from. */
export interface Question {
  readonly source: string;
  readonly delivery: Delivery;
}

type PersonRow = readonly [id: string, active: boolean, enabled: boolean, name: string | null, locale: string | null];
type Pair = readonly [string, string];

interface FactsRow {
  readonly people: readonly PersonRow[] | null;
  readonly blocks: readonly Pair[] | null;
  readonly mutes: readonly Pair[] | null;
  readonly thread_mutes: readonly (readonly [string, string, string])[] | null;
  readonly preferences: readonly (readonly [string, string, 'on' | 'off' | 'following'])[] | null;
  readonly hidden: readonly (readonly [string, string, string])[] | null;
  readonly owner_blocks: readonly (readonly [string, string, string, string])[] | null;
}

/** What follows a `select` and gives one of FactsRow, over parameters by these names ($1 …), each an array of text. */
type FactSql = (...parameters: string[]) => string;

/** Facts that the config has no table or condition for are not there. */
type FactsSql = Readonly<Partial<Record<keyof FactsRow, FactSql>>>;

/** The part of the facts that is the same for every batch: SQL made from the config. */
export class PrivacyLoader {
  private constructor(
    private readonly config: Config,
    private readonly types: ColumnTypes,
    private readonly sql: FactsSql,
    private readonly followSql: string | null,
    private readonly visible: ReadonlySet<string>,
    /** Sources whose objects may belong to somebody else than the recipient. */
    private readonly owned: ReadonlySet<string>,
    /** The condition of all who read the inbox. */
    readonly readable: Readable,
  ) {}

  /**
   * Asks the database for the types of `:user` and `:object_id` in every `visible`. Throws what Postgres says of bad SQL, and `database_denied`
   * where facts are hidden.
   */
  static async create(client: pg.ClientBase, config: Config, types: ColumnTypes): Promise<PrivacyLoader> {
    await assertNothingHidden(client, config);
    const hidden: FactSql[] = [];
    const visible = new Set<string>();
    for (const source of config.sources) {
      if (source.visible === null || source.object === null) continue;
      hidden.push(await hiddenSql(client, source, source.visible));
      visible.add(source.name);
    }
    const owners = await loadOwners(client, config, types);
    const owner = ownersSql(config, types, owners);
    const owned = config.sources.filter(
      (source) => owner !== null && owners.kinds.includes(source.object?.kind ?? '') && !owners.isRecipient(source),
    );
    return new PrivacyLoader(
      config,
      types,
      factsSql(config, types, hidden, owner),
      followsSql(config, types),
      visible,
      new Set(owned.map(({ name }) => name)),
      await readableSql(client, config, types, owners),
    );
  }

  /** Whether people have a language. */
  get localised(): boolean {
    return this.config.people !== null && this.config.people.locale !== null;
  }

  /**
   * Facts for these questions and names of these people besides. One statement, two where somebody hears only of whom they follow, none where
   * there is nothing to ask.
   */
  async load(
    client: pg.ClientBase,
    questions: readonly Question[],
    alsoPeople: Iterable<string> = [],
  ): Promise<PrivacyFacts> {
    const people = new Set(alsoPeople);
    const recipients: string[] = [];
    const actors: string[] = [];
    const pairs = new Set<string>();
    const wanted = new Map<string, [string, string]>();
    const threads = new Map<string, [string, string, string]>();
    const seen = new Map<string, [string, string, string]>();
    const owned = new Map<string, [string, string, string, string]>();
    for (const { source, delivery } of questions) {
      const { recipientId, actorId, type, objectKind, objectId } = delivery;
      people.add(recipientId);
      wanted.set(directedKey(recipientId, type), [recipientId, type]);
      if (actorId !== null) {
        people.add(actorId);
        const key = directedKey(recipientId, actorId);
        if (!pairs.has(key)) {
          pairs.add(key);
          recipients.push(recipientId);
          actors.push(actorId);
        }
      }
      if (objectKind === null || objectId === null) continue;
      if (this.config.threadMutes !== null)
        threads.set(threadKey(recipientId, objectKind, objectId), [recipientId, objectKind, objectId]);
      if (this.owned.has(source))
        owned.set(ownerKey(recipientId, actorId ?? '', objectKind, objectId), [
          recipientId,
          actorId ?? '',
          objectKind,
          objectId,
        ]);
      if (this.visible.has(source)) seen.set(hiddenKey(source, recipientId, objectId), [source, recipientId, objectId]);
    }
    const { config, types } = this;
    const fits = (table: string | undefined, column: string | null | undefined): ((id: string) => boolean) =>
      table === undefined || typeof column !== 'string' ? () => false : fitting(types(table, column));
    const person = fits(config.people?.table, config.people?.id);
    const named = (table: string | undefined, ...columns: (string | undefined)[]): ((id: string) => boolean) => {
      const fit = columns.map((column) =>
        table === undefined || column === undefined
          ? (): boolean => false
          : fitting(personColumn(table, column, types).type),
      );
      return (id) => fit.every((fitsOne) => fitsOne(id));
    };
    const block = named(config.blocks?.table, config.blocks?.from, config.blocks?.to);
    const mute = named(config.mutes?.table, config.mutes?.from, config.mutes?.to);
    const threadUser = named(config.threadMutes?.table, config.threadMutes?.user);
    const threadId = fits(config.threadMutes?.table, config.threadMutes?.id);
    const among = (fit: (id: string) => boolean): [string[], string[]] => {
      const a: string[] = [];
      const b: string[] = [];
      recipients.forEach((recipient, i) => {
        const actor = actors[i] ?? '';
        if (!fit(recipient) || !fit(actor)) return;
        a.push(recipient);
        b.push(actor);
      });
      return [a, b];
    };
    const threadList = [...threads.values()].filter(([user, , id]) => threadUser(user) && threadId(id));
    const statement = statementOf(this.sql, {
      people: [[...people].filter(person)],
      blocks: among(block),
      mutes: among(mute),
      thread_mutes: columnsOf(threadList, 3),
      preferences: columnsOf([...wanted.values()], 2),
      hidden: columnsOf([...seen.values()], 3),
      owner_blocks: columnsOf([...owned.values()], 4),
    });
    const row = statement === null ? undefined : (await client.query<FactsRow>(statement)).rows[0];
    const facts = this.facts(row);
    const following = (row?.preferences ?? []).some(([, , setting]) => setting === 'following');
    return following && this.followSql !== null
      ? { ...facts, follows: await this.follows(client, this.followSql, recipients, actors) }
      : facts;
  }

  private facts(row: FactsRow | undefined): PrivacyFacts {
    const people = new Map<string, Person>();
    for (const [id, active, enabled, name, locale] of row?.people ?? [])
      people.set(id, { id, active, enabled, name, locale });
    return {
      people: this.config.people === null ? null : people,
      blocks: new Set((row?.blocks ?? []).map(([a, b]) => directedKey(a, b))),
      mutes: new Set((row?.mutes ?? []).map(([a, b]) => directedKey(a, b))),
      threadMutes: new Set((row?.thread_mutes ?? []).map(([user, kind, id]) => threadKey(user, kind, id))),
      preferences: new Map((row?.preferences ?? []).map(([user, type, setting]) => [directedKey(user, type), setting])),
      follows: new Set(),
      hidden: new Set((row?.hidden ?? []).map(([source, user, object]) => hiddenKey(source, user, object))),
      ownerBlocks: new Set((row?.owner_blocks ?? []).map(([user, actor, kind, id]) => ownerKey(user, actor, kind, id))),
    };
  }

  private async follows(
    client: pg.ClientBase,
    sql: string,
    recipients: string[],
    actors: string[],
  ): Promise<Set<string>> {
    const result = await client.query<{ a: string; b: string }>(sql, [recipients, actors]);
    return new Set(result.rows.map(({ a, b }) => directedKey(a, b)));
  }
}

function columnsOf(rows: readonly (readonly string[])[], count: number): string[][] {
  return Array.from({ length: count }, (_, i) => rows.map((row) => row[i] ?? ''));
}

/**
 * The statement for these questions, with only the parts that have any: setting up the others would cost a small batch
 * more than its answers. Null where nothing is asked.
 */
function statementOf(
  sql: FactsSql,
  questions: Readonly<Record<keyof FactsRow, readonly (readonly string[])[]>>,
): { name: string; text: string; values: string[] } | null {
  const values: string[] = [];
  const asked: string[] = [];
  const parts: string[] = [];
  for (const fact of Object.keys(questions) as (keyof FactsRow)[]) {
    const lists = questions[fact];
    const select = sql[fact];
    if (select === undefined || (lists[0] ?? []).length === 0) continue;
    const parameters = lists.map((list) => `$${String(values.push(textArray(list)))}`);
    asked.push(fact);
    parts.push(`(select ${select(...parameters)}) as ${fact}`);
  }
  if (parts.length === 0) return null;
  // Postgres cuts longer names than 63 bytes, so of each word the first letters.
  const name = asked.map((fact) => fact.slice(0, 2)).join('_');
  return { name: `belfry_privacy_${name}`, text: `select ${parts.join(',\n  ')}`, values };
}

function factsSql(config: Config, types: ColumnTypes, hidden: readonly FactSql[], owner: FactSql | null): FactsSql {
  const { people, blocks, mutes, threadMutes } = config;
  return {
    ...(people === null ? {} : { people: (ids: string) => peopleSql(people, ids, types) }),
    ...(blocks === null ? {} : { blocks: (a: string, b: string) => relationSql(blocks, a, b, types) }),
    ...(mutes === null ? {} : { mutes: (a: string, b: string) => relationSql(mutes, a, b, types) }),
    ...(threadMutes === null
      ? {}
      : { thread_mutes: (a: string, b: string, c: string) => mutedThreadsSql(threadMutes, [a, b, c], types) }),
    preferences: (users, ofTypes) => `json_agg(json_build_array(t.user_id, t.type, t.setting))
    from unnest(${users}::text[], ${ofTypes}::text[]) w(u, t) join belfry.preference t on t.user_id = w.u and t.type = w.t`,
    ...(hidden.length === 0
      ? {}
      : {
          hidden: (...lists: string[]) =>
            `json_agg(json_build_array(x.s, x.u, x.o)) from (${hidden.map((one) => one(...lists)).join('\nunion all\n')}) x`,
        }),
    ...(owner === null
      ? {}
      : {
          owner_blocks: (...lists: string[]) =>
            `json_agg(json_build_array(x.r, x.a, x.k, x.o)) from (${owner(...lists)}) x`,
        }),
  };
}

function peopleSql(people: NonNullable<Config['people']>, ids: string, types: ColumnTypes): string {
  const { table, id, active, enabled, name, locale } = people;
  const column = (of: string): string => `p.${quoteIdent(of)}`;
  return `json_agg(json_build_array(${column(id)}::text, ${active === null ? 'true' : `coalesce((${active}\n), false)`},
           ${enabled === null ? 'true' : `coalesce(${column(enabled)}, true)`},
           ${name === null ? 'null' : `${column(name)}::text`}, ${locale === null ? 'null' : `${column(locale)}::text`}))
         from ${quoteTable(table)} p where ${column(id)} = any(${ids}::${types(table, id) ?? 'text'}[])`;
}

function mutedThreadsSql(
  threadMutes: NonNullable<Config['threadMutes']>,
  [users, kinds, ids]: readonly [string, string, string],
  types: ColumnTypes,
): string {
  const { table, kind, id } = threadMutes;
  const user = personColumn(table, threadMutes.user, types);
  const ofKind = types(table, kind) === null ? `w.b = ${quoteLiteral(kind)}` : `t.${quoteIdent(kind)}::text = w.b`;
  return `json_agg(json_build_array(w.a, w.b, w.c))
         from unnest(${users}::text[], ${kinds}::text[], ${ids}::text[], ${users}::text[]::${user.type}[], ${ids}::text[]::${types(table, id) ?? 'text'}[]) w(a, b, c, x, z)
         join ${holdingRows(threadMutes)} t on ${user.sql} = w.x and t.${quoteIdent(id)} = w.z and ${ofKind}`;
}

/** Pairs (a, b) of which a does not hear of b: asked about pair by pair, and given back as they came. */
function relationSql(relation: RelationConfig, a: string, b: string, types: ColumnTypes): string {
  const { table, from, to } = relation;
  const rows = holdingRows(relation);
  const pairs = (one: string, other: string): string => {
    const [x, y] = [personColumn(table, one, types), personColumn(table, other, types)];
    return `
    select w.a, w.b from unnest(${a}::text[], ${b}::text[], ${a}::text[]::${x.type}[], ${b}::text[]::${y.type}[]) w(a, b, x, y)
      join ${rows} t on ${x.sql} = w.x and ${y.sql} = w.y`;
  };
  const both = relation.direction === 'both' ? ` union all ${pairs(to, from)}` : '';
  return `json_agg(json_build_array(x.a, x.b)) from (${pairs(from, to)}${both}) x`;
}

/** The pairs of one source that its `visible` gives no row for. */
async function hiddenSql(client: pg.ClientBase, source: Source, visible: string): Promise<FactSql> {
  const bound = (await bindVisible(client, visible))('belfry_w.u', 'belfry_w.o');
  return (sources, users, objects) =>
    `select belfry_w.s, belfry_w.u, belfry_w.o from unnest(${sources}::text[], ${users}::text[], ${objects}::text[]) belfry_w(s, u, o)
    where belfry_w.s = ${quoteLiteral(source.name)} and not exists (${bound}
    )`;
}

/**
 * Of these recipients, actors and objects, those with a block between the object's owner and one of both. Only asked where
 * the owner is somebody else than the recipient.
 */
function ownersSql(config: Config, types: ColumnTypes, owners: Owners): FactSql | null {
  const { blocks } = config;
  if (blocks === null || owners.kinds.length === 0) return null;
  const table = holdingRows(blocks);
  const both = blocks.direction === 'both';
  const [from, to] = [personColumn(blocks.table, blocks.from, types), personColumn(blocks.table, blocks.to, types)];
  const between = (one: string, other: string): string =>
    `exists (select from ${table} t where ${from.sql} = ${cast(one, from.type, null)} and ${to.sql} = ${cast(other, to.type, null)})`;
  const ofKind = (kind: string, [recipients, actors, kinds, objects]: readonly string[]): string => {
    const { from, where, owner } = owners.of(kind, 'w.o');
    return `select w.r, w.a, w.k, w.o from unnest(${recipients}::text[], ${actors}::text[], ${kinds}::text[], ${objects}::text[]) w(r, a, k, o)
        cross join lateral (select ${owner}::text as id from ${from} where ${where}) belfry_owner
        where w.k = ${quoteLiteral(kind)} and belfry_owner.id is not null
          and (${[
            between('belfry_owner.id', 'w.r'),
            ...(both ? [between('w.r', 'belfry_owner.id')] : []),
            between('belfry_owner.id', 'w.a'),
            ...(both ? [between('w.a', 'belfry_owner.id')] : []),
          ].join(' or ')})`;
  };
  return (...lists) => owners.kinds.map((kind) => ofKind(kind, lists)).join('\nunion all\n');
}

/** Who follows whom, from the source of type `follow` whose actor and recipient are columns; null where there is none. */
function followsSql(config: Config, types: ColumnTypes): string | null {
  const source = config.sources.find(
    ({ type, actor, recipient }) => type === 'follow' && actor?.kind === 'column' && recipient?.kind === 'column',
  );
  if (source?.actor?.kind !== 'column' || source.recipient?.kind !== 'column') return null;
  const { actor, recipient } = source;
  const follower = personColumn(source.table, actor.column, types);
  const followed = personColumn(source.table, recipient.column, types);
  return `select w.a, w.b from unnest($1::text[], $2::text[]) w(a, b)
    where exists (select from ${quoteTable(source.table)} t where ${follower.sql} = ${cast('w.a', follower.type, null)}
      and ${followed.sql} = ${cast('w.b', followed.type, null)} ${source.when === null ? '' : `and (${source.when}\n)`})`;
}
