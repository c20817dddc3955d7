/**
 * Who may still read what: the rules of privacy as a part of every statement that reads the inbox.
 *
 * What must hold: list, badge and resume use this very condition, so that they cannot disagree, and nothing that is
 * blocked, muted, hidden, deleted or suspended since it was delivered is shown again. The preferences (notifications off, a
 * type off, only whom one follows) are not asked here: they say what people want to hear from now on, not what they may see.
 *
 * A group is judged by the actors it shows: those who may not be seen are left out of it and of its count; it is hidden
 * when none is left and nobody else stands behind it.
 *
 * Nearly everybody blocks and mutes few: those few are fetched once per person (`shunned`), and whoever is not among them
 * is not looked up again for each notification.
 */

import type pg from 'pg';
import type { Config, RelationConfig, Source } from '../config.js';
import { quoteIdent, quoteLiteral, quoteTable } from '../postgres/sql.js';
import { cast, holdingRows, personColumn } from '../schema/columns.js';
import type { ColumnTypes, PersonColumn } from '../schema/columns.js';
import type { Owners } from '../schema/owners.js';
import { bindVisible } from '../schema/visible.js';

/** SQL over a row of belfry.notification that is called `belfry_n`, a name that no SQL of a config is likely to use. */
export interface Readable {
  /** For a person (an expression of text) a row to be joined laterally as `belfry_h`, which `condition` and `actors` read. */
  readonly shunned: (person: string) => string;
  /** Whether its recipient may be shown it. */
  readonly condition: string;
  /** text[]: the shown actors whom its recipient may see, in their order. */
  readonly actors: string;
}

/** Up to so many people (or threads) that a person shuns their ids are fetched at once; where there are more, each is looked up. */
const fewShunned = 64;

/** Throws what Postgres says of bad SQL in the config. */
export async function readableSql(
  client: pg.ClientBase,
  config: Config,
  types: ColumnTypes,
  owners: Owners,
): Promise<Readable> {
  const shunned = new Shunned();
  const allowed = actorAllowed(config, types, shunned);
  const conditions = [
    threadSql(config, types, shunned),
    ...objectSql(config, types, owners, shunned),
    ...(await visibleSql(client, config)),
  ];
  if (allowed !== null)
    conditions.unshift(
      `(belfry_n.actor_count > cardinality(belfry_n.actors) or belfry_n.actors = '{}' or exists (select from unnest(belfry_n.actors) belfry_a(id) where ${allowed}))`,
    );
  return {
    shunned: (person) => shunned.row(person),
    condition: conditions.filter((condition) => condition !== null).join('\n       and ') || 'true',
    actors:
      allowed === null
        ? 'belfry_n.actors'
        : `array(select belfry_a.id from unnest(belfry_n.actors) with ordinality belfry_a(id, nr) where ${allowed} order by belfry_a.nr)`,
  };
}

/** Rows of a table that stand between the person in the column `person` and what is in the column `other`. */
interface Between {
  readonly rows: string;
  readonly person: PersonColumn;
  /** For a muted thread it holds the thread's id. */
  readonly other: PersonColumn;
  /** SQL over such a row, called `t`, that must hold besides. */
  readonly and?: string;
}

/** What a person shuns: an array for each kind, in the row that is joined as `belfry_h`; null where there are too many. */
class Shunned {
  private readonly lists: Between[] = [];

  row(whose: string): string {
    const few = String(fewShunned);
    const columns = this.lists.map(
      ({ rows, person, other }, i) => `(
        select case when count(*) <= ${few} then coalesce(array_agg(s.id), '{}') end
          from (select ${other.sql} as id from ${rows} t
                 where ${person.sql} = ${cast(whose, person.type, null)} limit ${few} + 1) s) as belfry_s${String(i)}`,
    );
    // OFFSET keeps the planner from inlining the arrays where they are used, which would fetch them for every notification.
    return columns.length === 0 ? '(select)' : `(select ${columns.join(', ')} offset 0)`;
  }

  /** The condition that nothing stands between the recipient of `belfry_n` and `other`, an expression of text. */
  nothing(between: Between, other: string): string {
    const { rows, person, and } = between;
    const known = this.lists.findIndex(
      (list) => JSON.stringify({ ...list, and }) === JSON.stringify({ ...between, and }),
    );
    const nr = known >= 0 ? known : this.lists.push(between) - 1;
    const value = cast(other, between.other.type, null);
    // Null (too many, or no value of the type) is not known, so it is looked up.
    return `(coalesce(${value} <> all (belfry_h.belfry_s${String(nr)}), false) or not exists (
            select from ${rows} t where ${person.sql} = ${cast('belfry_n.user_id', person.type, null)}
               and ${between.other.sql} = ${value}${and === undefined ? '' : ` and ${and}`}))`;
  }
}

/** Rows of blocks or mutes that keep what `other` does from a person, for each direction in which they work. */
function relation(config: RelationConfig, types: ColumnTypes): { readonly against: Between; readonly by: Between } {
  const { table } = config;
  const [from, to] = [personColumn(table, config.from, types), personColumn(table, config.to, types)];
  const rows = holdingRows(config);
  return { against: { rows, person: from, other: to }, by: { rows, person: to, other: from } };
}

/** Over `belfry_n` and an actor `belfry_a.id`; null where the config has nothing to ask. */
function actorAllowed({ people, blocks, mutes }: Config, types: ColumnTypes, shunned: Shunned): string | null {
  const conditions: string[] = [];
  for (const config of [blocks, mutes]) {
    if (config === null) continue;
    const { against, by } = relation(config, types);
    conditions.push(shunned.nothing(against, 'belfry_a.id'));
    if (config.direction === 'both') conditions.push(shunned.nothing(by, 'belfry_a.id'));
  }
  if (people !== null) {
    const id = cast('belfry_a.id', types(people.table, people.id) ?? 'text', null);
    conditions.push(
      `exists (select from ${quoteTable(people.table)} p where p.${quoteIdent(people.id)} = ${id}${people.active === null ? '' : ` and (${people.active}\n)`})`,
    );
  }
  return conditions.length === 0 ? null : conditions.join(' and ');
}

function threadSql({ threadMutes }: Config, types: ColumnTypes, shunned: Shunned): string | null {
  if (threadMutes === null) return null;
  const { table, user, kind, id } = threadMutes;
  const column = types(table, kind) === null ? null : quoteIdent(kind);
  const between: Between = {
    rows: holdingRows(threadMutes),
    person: personColumn(table, user, types),
    other: { sql: `t.${quoteIdent(id)}`, type: types(table, id) ?? 'text' },
    ...(column === null ? {} : { and: `t.${column}::text = belfry_n.object_kind` }),
  };
  const elsewhere = column === null ? `or belfry_n.object_kind <> ${quoteLiteral(kind)} ` : '';
  return `(belfry_n.object_id is null ${elsewhere}or ${shunned.nothing(between, 'belfry_n.object_id')})`;
}

/** For objects whose table the config names: the object is still there, and no block stands between its owner and the recipient. */
function objectSql({ blocks }: Config, types: ColumnTypes, owners: Owners, shunned: Shunned): string[] {
  return owners.kinds.map((kind) => {
    const { from, where, owner } = owners.of(kind, 'belfry_n.object_id');
    const apart: string[] = [];
    if (blocks !== null) {
      const { against, by } = relation(blocks, types);
      apart.push(shunned.nothing(by, `${owner}::text`));
      if (blocks.direction === 'both') apart.push(shunned.nothing(against, `${owner}::text`));
    }
    return `(belfry_n.object_kind is distinct from ${quoteLiteral(kind)} or exists (select from ${from} where ${[where, ...apart].join(' and ')}))`;
  });
}

/** A condition for each `visible` of the config, about what came from its source. */
async function visibleSql(client: pg.ClientBase, config: Config): Promise<string[]> {
  const conditions: string[] = [];
  for (const source of config.sources) {
    const { visible, object, type } = source;
    if (visible === null || object === null) continue;
    const bound = (await bindVisible(client, visible))('belfry_n.user_id', 'belfry_n.object_id');
    conditions.push(
      `(belfry_n.type <> ${quoteLiteral(type)} or belfry_n.object_kind is distinct from ${quoteLiteral(object.kind)}${cameFromElsewhere(source, config.sources)} or exists (${bound}\n))`,
    );
  }
  return conditions;
}

/** Needed only where notifications of another source look the same but may be seen by other people. */
function cameFromElsewhere(source: Source, sources: readonly Source[]): string {
  const alike = sources.some(
    ({ type, object, visible }) =>
      type === source.type && object?.kind === source.object?.kind && visible !== source.visible,
  );
  return alike
    ? ` or not exists (select from belfry.notification_event e where e.notification_id = belfry_n.id and e.source = ${quoteLiteral(source.name)})`
    : '';
}
