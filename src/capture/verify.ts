/**
 * Does the database still capture what the config says? Reads the catalogue only; for `belfry status`, the start, and the check of
 * every minute.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import type { TableName } from '../postgres/sql.js';
import { ringBody } from './bell.js';
import { readCatalog, tableKey, type Catalog, type InstalledFunction, type TriggerRecord } from './catalog.js';
import { formerPartitions } from './deaf.js';
import { capturedSources, desiredCapture, type DesiredTrigger } from './desired.js';
import { capturedTables } from './install.js';
import { CAPTURE_ROLE, qualified, type Operation } from './names.js';
import { sameTrigger } from './plan.js';

export type HealthState = 'ok' | 'missing' | 'disabled' | 'drifted' | 'column gone' | 'column retyped';

export interface TriggerHealth {
  readonly source: string;
  /** `schema.table`, quoted where needed; a partition has entries of its own. */
  readonly table: string;
  readonly operation: Operation;
  /** It is on a partition, and matters only for writes straight into that. */
  readonly partition: boolean;
  readonly state: HealthState;
  /** What is wrong and what to do; null when it is ok. */
  readonly detail: string | null;
  /** It was a partition when it was captured, and is none any more. */
  readonly left?: true;
}

/** One entry per source, table or partition, and operation, in the order of the config. The worst of what is wrong with each. */
export async function verifyCapture(client: pg.ClientBase, config: Config): Promise<TriggerHealth[]> {
  const catalog = await readCatalog(client, capturedTables(config));
  const desired = desiredCapture(config, catalog);
  const functions = new Map(desired.functions.map((row) => [row.name, row]));
  const installed = new Map(catalog.functions.map((row) => [row.name, row]));
  const ringDrifted = catalog.ring !== ringBody(desired.wakeup);

  const health = desired.triggers.map((wanted): TriggerHealth => {
    const { source, operation, partition } = wanted;
    const entry = { source, table: qualified(wanted.table), operation, partition };
    const found = catalog.triggers.find(
      (row) => tableKey(row.table) === tableKey(wanted.table) && row.name === wanted.name,
    );
    const say = (state: HealthState, detail: string): TriggerHealth => ({ ...entry, state, detail });
    if (found === undefined) return say('missing', 'there is no trigger: run belfry migrate');
    if (!(found.enabled === 'A' || (found.enabled === 'O' && wanted.mode === 'statement'))) {
      return say('disabled', 'the trigger is switched off: run belfry migrate');
    }
    const columns = columnProblem(wanted, catalog, config);
    if (columns !== null) return say(...columns);
    const body = functions.get(wanted.functionName);
    const actual = installed.get(wanted.functionName);
    const same =
      actual !== undefined &&
      body !== undefined &&
      actual.source === body.body &&
      actual.securityDefiner &&
      actual.settings.join('\n') === body.settings.join('\n') &&
      sameTrigger(wanted, found);
    if (!same) return say('drifted', 'the trigger is not what the config says: run belfry migrate');
    const rights = rightsProblem(actual, catalog);
    if (rights !== null) return say('drifted', `${rights}: run belfry migrate`);
    if (ringDrifted) return say('drifted', 'belfry.ring() does not fit database.wakeup: run belfry migrate');
    return { ...entry, state: 'ok', detail: null };
  });
  const left = formerPartitions(catalog, desired).flatMap(({ source, table, records }) =>
    records.map(({ operation }): TriggerHealth => ({
      source,
      table: qualified(table),
      operation: operation as Operation,
      partition: true,
      state: 'drifted',
      left: true,
      detail: 'it is no partition any more, and its rows still count: run belfry migrate',
    })),
  );
  return [...health, ...left, ...missingTables(catalog, config)];
}

/** A restore may give a function to whoever restored, and leave grants out. */
function rightsProblem({ name, owner, ownerFits }: InstalledFunction, { missingGrants }: Catalog): string | null {
  if (!ownerFits) return `belfry.${name} belongs to ${owner}, and runs with all of that role's rights`;
  const missing = owner === CAPTURE_ROLE ? missingGrants.filter((grant) => grant.endsWith(` to ${CAPTURE_ROLE}`)) : [];
  return missing.length === 0 ? null : `${CAPTURE_ROLE} may not do what a trigger needs (${missing.join('; ')})`;
}

function columnProblem(
  wanted: DesiredTrigger,
  catalog: Catalog,
  config: Config,
): ['column gone' | 'column retyped', string] | null {
  const source = capturedSources(config).find((row) => row.name === wanted.source);
  const record = recordOf(wanted, catalog);
  const names = [...new Set([...(source?.columns ?? []), ...Object.keys(record?.columns ?? {})])];
  const gone = names.filter((name) => wanted.columns[name] === undefined);
  if (gone.length > 0)
    return ['column gone', `captured as null: ${gone.join(', ')}; correct the config, then run belfry migrate`];
  const retyped = Object.entries(record?.columns ?? {}).filter(([name, type]) => wanted.columns[name] !== type);
  if (retyped.length === 0) return null;
  const list = retyped.map(([name, type]) => `${name} was ${type}, is ${wanted.columns[name] ?? ''}`).join(', ');
  return ['column retyped', `works on; run belfry migrate to accept: ${list}`];
}

function recordOf(wanted: DesiredTrigger, catalog: Catalog): TriggerRecord | undefined {
  const key = (table: TableName): string => tableKey(table);
  return catalog.records.find(
    (row) => row.trigger === wanted.name && key({ schema: row.schema, name: row.table }) === key(wanted.table),
  );
}

function missingTables(catalog: Catalog, config: Config): TriggerHealth[] {
  return capturedSources(config)
    .filter((source) => (catalog.tables.get(tableKey(source.table)) ?? null) === null)
    .map((source) => ({
      source: source.name,
      table: qualified(source.table),
      operation: 'insert',
      partition: false,
      state: 'missing',
      detail: 'the table is gone',
    }));
}
