/**
 * Which events of the outbox are meant: the filters of the commands, as a condition in SQL.
 *
 * What the columns of a row tell is asked here. Whom a path or a query leads to can't be: such sources pass the condition, and
 * whoever reads looks at the resolved event, which names people as their rows do: so must the filter then (`personOf`).
 */

import type { Config, Source } from '../../config.js';
import { quoteLiteral } from '../../postgres/sql.js';
import { isPerson } from '../../schema/columns.js';
import type { ColumnTypes } from '../../schema/columns.js';

export interface OutboxFilter {
  readonly source?: string;
  readonly type?: string;
  /** As actor or recipient. */
  readonly user?: string;
  /** `kind:id`, or an id of any kind. */
  readonly object?: string;
  /** Inclusive. */
  readonly since?: Date;
  /** Exclusive. */
  readonly until?: Date;
}

/** The condition on `belfry.outbox o`; where only a path or a query tells whom an event is for, a filter by user lets it through (page.ts and browse.ts look closer). */
export function conditionOf(config: Config, types: ColumnTypes, filter: OutboxFilter): string {
  const parts = ['true'];
  if (filter.source !== undefined) parts.push(`o.source = ${quoteLiteral(filter.source)}`);
  if (filter.since !== undefined) parts.push(`o.at >= ${quoteLiteral(filter.since.toISOString())}`);
  if (filter.until !== undefined) parts.push(`o.at < ${quoteLiteral(filter.until.toISOString())}`);
  if (filter.type !== undefined) parts.push(typeCondition(config, filter.type));
  if (filter.object !== undefined) parts.push(objectCondition(config, filter.object));
  if (filter.user !== undefined) parts.push(userCondition(config, types, filter.user));
  return parts.join('\n and ');
}

function typeCondition(config: Config, type: string): string {
  const names = config.sources.filter((source) => source.type === type).map((source) => source.name);
  if (type === 'system') names.push('belfry.announce');
  return `(o.source in (${list(names)}) or o.source = 'belfry.notify' and o.new ->> 'type' = ${quoteLiteral(type)})`;
}

function objectCondition(config: Config, object: string): string {
  const colon = object.indexOf(':');
  const named = config.sources.filter(
    (source) => source.object !== null && source.object.kind === object.slice(0, colon),
  );
  const [sources, id] = colon > 0 && named.length > 0 ? [named, object.slice(colon + 1)] : [config.sources, object];
  return anyOf(
    sources.map(
      (source) =>
        `o.source = ${quoteLiteral(source.name)} and ${holds(source.object === null ? [] : [source.object.id], id)}`,
    ),
  );
}

function userCondition(config: Config, types: ColumnTypes, user: string): string {
  const names = (columns: readonly string[]): string => anyColumn(columns, (value) => isPerson(value, user, types));
  const open = config.sources.filter((source) => !isTold(source)).map((source) => source.name);
  return anyOf([
    `o.source in (${list(open)})`,
    `o.source = 'belfry.revoke' and ${names(['user_id'])}`,
    `o.source = 'belfry.notify' and ${names(['user_id', 'actor_id'])}`,
    ...config.sources
      .filter(isTold)
      .map((source) => `o.source = ${quoteLiteral(source.name)} and ${names(userColumns(source))}`),
    ...pairsOf(config).map(({ name, columns }) => `o.source = ${quoteLiteral(name)} and ${names(columns)}`),
  ]);
}

/** One of the columns holds the id, before or after; the outbox has a char(n) with the blanks that fill it up. */
function holds(columns: readonly string[], id: string): string {
  return anyColumn(columns, (value) => `rtrim(${value}) = ${quoteLiteral(id.trimEnd())}`);
}

function anyColumn(columns: readonly string[], condition: (value: string) => string): string {
  return anyOf(
    columns.flatMap((column) => ['new', 'old'].map((side) => condition(`o.${side} ->> ${quoteLiteral(column)}`))),
  );
}

function anyOf(conditions: readonly string[]): string {
  return conditions.length === 0 ? 'false' : `(${conditions.join(' or ')})`;
}

function list(names: readonly string[]): string {
  return names.length === 0 ? 'null' : names.map(quoteLiteral).join(', ');
}

/** Whether columns of the row say everything about actor and recipient. */
export function isTold(source: Source): boolean {
  return [source.actor, source.recipient].every((who) => who === null || who.kind === 'column');
}

export function userColumns(source: Source): string[] {
  return [source.actor, source.recipient].flatMap((who) => (who?.kind === 'column' ? [who.column] : []));
}

/** Internal sources, with the columns that name people. */
export function pairsOf(
  config: Config,
): { readonly name: string; readonly table: string; readonly columns: readonly string[] }[] {
  const { blocks, mutes, threadMutes } = config;
  const of = (name: string, table: string, columns: readonly string[]) => ({ name, table, columns });
  return [
    ...(blocks === null ? [] : [of('belfry.blocks', blocks.table, [blocks.from, blocks.to])]),
    ...(mutes === null ? [] : [of('belfry.mutes', mutes.table, [mutes.from, mutes.to])]),
    ...(threadMutes === null ? [] : [of('belfry.thread_mutes', threadMutes.table, [threadMutes.user, threadMutes.id])]),
  ];
}
