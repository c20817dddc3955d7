/**
 * The difference between what should be installed and what is, as steps of SQL: executed by installCapture, printed by captureSql.
 *
 * - What is as it should be is not touched: a second run has no steps.
 * - A step is a transaction, and holds locks on at most one table of the application.
 * - Only triggers that begin with belfry_ and call belfry.capture_… are ever replaced or dropped.
 */

import type { Config } from '../config.js';
import { quoteIdent, quoteLiteral, type TableName } from '../postgres/sql.js';
import { ringBody, ringStatement } from './bell.js';
import {
  tableKey,
  type Catalog,
  type InstalledFunction,
  type InstalledTrigger,
  type TriggerRecord,
} from './catalog.js';
import { deafSources, formerPartitions, type Deafness, type FormerPartition } from './deaf.js';
import { desiredCapture, type Desired, type DesiredFunction, type DesiredTrigger } from './desired.js';
import { APP_ROLE, CAPTURE_ROLE, qualified } from './names.js';

export interface Step {
  /** What it changes, a line each. */
  readonly changes: readonly string[];
  /** The table that it locks, if any. */
  readonly table: TableName | null;
  readonly statements: readonly string[];
}

export interface Plan {
  readonly steps: readonly Step[];
  readonly warnings: readonly string[];
}

// SHARE ROW EXCLUSIVE waits for writers, and makes those behind it wait: give up early, try again.
export const TABLE_LOCK_TIMEOUT = '200ms';

/** pg_trigger.tgtype of an AFTER trigger. */
const TYPE_BITS = { row: 1, insert: 4, delete: 8, update: 16, truncate: 32 } as const;

/** Roles that are missing, as SQL for whoever may create them. */
export function missingRoles(catalog: Catalog): string[] {
  const { captureExists, appExists } = catalog.roles;
  return [
    ...(captureExists ? [] : [`create role ${CAPTURE_ROLE} nologin`]),
    ...(appExists ? [] : [`create role ${APP_ROLE} nologin`]),
  ];
}

/** Everything that is not yet as the config wants it. */
export function planCapture(catalog: Catalog, config: Config): Plan {
  const desired = desiredCapture(config, catalog);
  const warnings = [...desired.warnings];
  const roles = missingRoles(catalog);
  const steps: Step[] = [];
  if (roles.length > 0) steps.push({ changes: roles, table: null, statements: roles });
  const common = commonStep(catalog, desired);
  if (common !== null) steps.push(common);
  const functions = functionStep(catalog, desired, warnings);
  if (functions !== null) steps.push(functions);
  steps.push(...tableSteps(catalog, desired));
  const obsolete = obsoleteFunctions(catalog, desired);
  if (obsolete !== null) steps.push(obsolete);
  return { steps, warnings };
}

/** The same as a script for psql (run it with -v ON_ERROR_STOP=1; where a lock is not granted, run it again). */
export function captureSql(catalog: Catalog, config: Config): string {
  const { steps, warnings } = planCapture(catalog, config);
  const lines = warnings.map((warning) => `-- ${warning.replaceAll('\n', '\n-- ')}\n`);
  for (const step of steps) {
    const lock = step.table === null ? '' : `set local lock_timeout = '${TABLE_LOCK_TIMEOUT}';\n`;
    lines.push(`begin;\n${lock}${step.statements.map((sql) => `${sql};\n`).join('')}commit;\n`);
  }
  return lines.length === 0 ? '-- capture: nothing to do\n' : lines.join('\n');
}

/** Statements that make the user a member of belfry_capture, and those that end that; null: not possible, or not needed. */
export function borrowRole(catalog: Catalog): { readonly before: string[]; readonly after: string[] } | null {
  const { roles, version } = catalog;
  if (roles.captureUsable) return { before: [], after: [] };
  if (!(roles.captureExists ? roles.captureGrantable : roles.mayCreate)) return null;
  if (version < 160_000) {
    return { before: [`grant ${CAPTURE_ROLE} to current_user`], after: [`revoke ${CAPTURE_ROLE} from current_user`] };
  }
  return {
    before: [`grant ${CAPTURE_ROLE} to current_user with inherit true, set true`],
    after: [`revoke ${CAPTURE_ROLE} from current_user granted by current_user`],
  };
}

function commonStep(catalog: Catalog, desired: Desired): Step | null {
  const changes: string[] = [];
  const statements: string[] = [];
  if (catalog.ring !== ringBody(desired.wakeup)) {
    changes.push(`function belfry.ring (wakeup: ${desired.wakeup})`);
    statements.push(ringStatement(desired.wakeup));
  }
  changes.push(...catalog.missingGrants);
  statements.push(...catalog.missingGrants);
  return statements.length === 0 ? null : { changes, table: null, statements };
}

function functionStep(catalog: Catalog, desired: Desired, warnings: string[]): Step | null {
  const { superuser, user } = catalog.roles;
  const borrowed = borrowRole(catalog);
  const owner = borrowed === null ? user : CAPTURE_ROLE;
  if (borrowed === null) {
    warnings.push(
      `The trigger functions belong to ${user}, because ${user} is not a member of ${CAPTURE_ROLE}: they run with more rights than they need. ` +
        `Have a DBA run: grant ${CAPTURE_ROLE} to ${quoteIdent(user)}; then run belfry migrate again.`,
    );
  }
  const installed = new Map(catalog.functions.map((row) => [row.name, row]));
  const outdated = desired.functions.filter((wanted) => !sameFunction(wanted, installed.get(wanted.name), owner));
  if (outdated.length === 0) return null;
  const statements = [...(borrowed?.before ?? [])];
  if (borrowed !== null && !superuser) statements.push(`grant create on schema belfry to ${CAPTURE_ROLE}`);
  for (const wanted of outdated) statements.push(...functionStatements(wanted, owner, superuser));
  if (borrowed !== null && !superuser) statements.push(`revoke create on schema belfry from ${CAPTURE_ROLE}`);
  statements.push(...(borrowed?.after ?? []));
  return { changes: outdated.map((wanted) => `function belfry.${wanted.name}`), table: null, statements };
}

function sameFunction(wanted: DesiredFunction, found: InstalledFunction | undefined, owner: string): boolean {
  return (
    found !== undefined &&
    found.source === wanted.body &&
    found.owner === owner &&
    found.securityDefiner &&
    !found.open &&
    found.settings.join('\n') === wanted.settings.join('\n')
  );
}

function functionStatements(wanted: DesiredFunction, owner: string, superuser: boolean): string[] {
  const name = `belfry.${quoteIdent(wanted.name)}()`;
  let tag = '$belfry$';
  for (let i = 1; wanted.body.includes(tag); i += 1) tag = `$belfry${i}$`;
  const settings = wanted.settings.map((setting) => {
    const [key = '', value = ''] = setting.split(/=(.*)/s);
    return `  set ${key} = ${key === 'search_path' ? value : quoteLiteral(value)}\n`;
  });
  const statements = [
    `create or replace function ${name} returns trigger\n  language plpgsql security definer\n${settings.join('')}as ${tag}${wanted.body}${tag}`,
    `comment on function ${name} is ${quoteLiteral(wanted.comment)}`,
    `alter function ${name} owner to ${owner === CAPTURE_ROLE ? CAPTURE_ROLE : 'current_user'}`,
    `revoke all on function ${name} from public`,
  ];
  // Whoever makes a trigger needs the right to execute its function.
  if (!superuser && owner === CAPTURE_ROLE) statements.push(`grant execute on function ${name} to current_user`);
  return statements;
}

function tableSteps(catalog: Catalog, desired: Desired): Step[] {
  const drafts = new Map<string, Draft>();
  const draft = (table: TableName): Draft => {
    const key = tableKey(table);
    const known = drafts.get(key) ?? { table, changes: [], locking: [], records: [], losses: [] };
    drafts.set(key, known);
    return known;
  };
  const key = (table: TableName, trigger: string): string => `${tableKey(table)} ${trigger}`;
  const installed = new Map(catalog.triggers.map((row) => [key(row.table, row.name), row]));
  const wantedKeys = new Set(desired.triggers.map((wanted) => key(wanted.table, wanted.name)));
  const records = new Map(
    catalog.records.map((row) => [key({ schema: row.schema, name: row.table }, row.trigger), row]),
  );

  for (const wanted of desired.triggers) {
    const statements = triggerStatements(wanted, installed.get(key(wanted.table, wanted.name)));
    if (statements.length > 0) {
      draft(wanted.table).changes.push(`trigger ${wanted.name} on ${qualified(wanted.table)}`);
      draft(wanted.table).locking.push(...statements);
    }
    const record = records.get(key(wanted.table, wanted.name));
    const same =
      record !== undefined &&
      record.source === wanted.source &&
      record.operation === wanted.operation &&
      record.capture === wanted.mode &&
      canonical(record.columns) === canonical(wanted.columns);
    if (!same || statements.length > 0) draft(wanted.table).records.push(recordStatement(wanted));
    if (!same && statements.length === 0)
      draft(wanted.table).changes.push(`record of ${wanted.name} on ${qualified(wanted.table)}`);
  }
  for (const loss of deafSources(catalog, desired)) {
    if (loss.kind === 'left')
      draft(loss.table).changes.push(
        `${qualified(loss.table)} is no part of ${loss.source} any more: its rows are taken out`,
      );
    else if (loss.kind !== 'partition')
      draft(loss.table).changes.push(
        `events of ${loss.source} on ${qualified(loss.table)} were lost: recorded for repair`,
      );
    draft(loss.table).losses.push(loss);
  }
  for (const found of catalog.triggers) {
    if (wantedKeys.has(key(found.table, found.name))) continue;
    draft(found.table).changes.push(`drop trigger ${found.name} on ${qualified(found.table)}`);
    draft(found.table).locking.push(dropStatement(found));
  }
  for (const row of catalog.records) {
    const table = { schema: row.schema, name: row.table };
    if (wantedKeys.has(key(table, row.trigger))) continue;
    draft(table).changes.push(`forget trigger ${row.trigger} on ${qualified(table)}`);
    draft(table).records.push(forgetStatement(row));
  }
  return [...drafts.values()].map(({ table, changes, locking, records: rows, losses }) => ({
    changes,
    table: locking.length > 0 ? table : null,
    statements: ordered(rows, locking, losses),
  }));
}

interface Draft {
  readonly table: TableName;
  readonly changes: string[];
  readonly locking: string[];
  readonly records: string[];
  readonly losses: Deafness[];
}

/** The table's lock last, so that it is held as shortly as can be. */
function ordered(records: readonly string[], locking: readonly string[], losses: readonly Deafness[]): string[] {
  const of = (fresh: boolean): string[] =>
    losses.filter(({ kind }) => (kind === 'partition') === fresh).map(({ statement }) => statement);
  return [...of(false), ...records, ...locking, ...of(true)];
}

/**
 * Puts back what somebody else took away: triggers that belfry migrate had installed and that are gone or switched off. Not what is
 * otherwise than the config says, since a newer config may have been migrated while this process runs on the old one.
 */
export function repairSteps(catalog: Catalog, config: Config): RepairStep[] {
  const desired = desiredCapture(config, catalog);
  const functions = new Set(catalog.functions.map((row) => row.name));
  // Of any table of the source: a partition that is new has no record of its own.
  const migrated = new Set(catalog.records.map((row) => row.trigger));
  const key = (table: TableName, trigger: string): string => `${tableKey(table)} ${trigger}`;
  const installed = new Map(catalog.triggers.map((row) => [key(row.table, row.name), row]));
  const losses = deafSources(catalog, desired);
  const drafts = new Map<string, Draft & { readonly put: DesiredTrigger[] }>();
  for (const wanted of desired.triggers) {
    const found = installed.get(key(wanted.table, wanted.name));
    const repairable =
      found === undefined
        ? migrated.has(wanted.name) && functions.has(wanted.functionName)
        : sameTrigger(wanted, found);
    const locking = repairable ? triggerStatements(wanted, found) : [];
    if (locking.length === 0) continue;
    const id = `${tableKey(wanted.table)} ${wanted.source}`;
    const own = losses.filter((loss) => `${tableKey(loss.table)} ${loss.source}` === id);
    const draft = drafts.get(id) ?? {
      table: wanted.table,
      changes: [],
      records: [],
      locking: [],
      put: [],
      // A column that is gone is for belfry migrate to record, when it is put right: until then nothing can be repaired.
      losses: own.filter(({ kind }) => kind !== 'column'),
    };
    drafts.set(id, draft);
    draft.changes.push(`trigger ${wanted.name} on ${qualified(wanted.table)}`);
    draft.locking.push(...locking);
    draft.put.push(wanted);
    // The record tells migrate which column it was.
    if (own.every(({ kind }) => kind !== 'column')) draft.records.push(recordStatement(wanted));
  }
  const put = [...drafts.values()].map(
    ({ table, changes, records, locking, losses: own, put: triggers }): RepairStep => ({
      table,
      source: triggers[0]?.source ?? '',
      partition: triggers[0]?.partition === true,
      changes,
      statements: ordered(records, locking, own),
    }),
  );
  return [...put, ...formerPartitions(catalog, desired).map((former) => releaseStep(former, catalog, losses))];
}

/** Ends the capture of what is no partition any more, and records that its rows are gone. */
function releaseStep(
  { source, table, records }: FormerPartition,
  catalog: Catalog,
  losses: readonly Deafness[],
): RepairStep {
  const on = (other: TableName): boolean => tableKey(other) === tableKey(table);
  const names = new Set(records.map((record) => record.trigger));
  const triggers = catalog.triggers.filter((trigger) => on(trigger.table) && names.has(trigger.name));
  return {
    ...{ table, source, partition: false },
    changes: [`${qualified(table)} is no part of ${source} any more`],
    statements: ordered(
      records.map(forgetStatement),
      triggers.map(dropStatement),
      losses.filter((loss) => loss.kind === 'left' && loss.source === source && on(loss.table)),
    ),
  };
}

const dropStatement = ({ name, table }: InstalledTrigger): string =>
  `drop trigger if exists ${quoteIdent(name)} on ${qualified(table)}`;

const forgetStatement = ({ schema, table, trigger }: TriggerRecord): string =>
  `delete from belfry.capture_trigger where table_schema = ${quoteLiteral(schema)}` +
  ` and table_name = ${quoteLiteral(table)} and trigger_name = ${quoteLiteral(trigger)}`;

/** The triggers of one source on one table. */
export interface RepairStep {
  readonly table: TableName;
  readonly source: string;
  readonly partition: boolean;
  readonly changes: readonly string[];
  readonly statements: readonly string[];
}

function triggerStatements(wanted: DesiredTrigger, found: InstalledTrigger | undefined): string[] {
  const enabled = wanted.mode === 'row' ? found?.enabled === 'A' : found?.enabled === 'O' || found?.enabled === 'A';
  const table = qualified(wanted.table);
  const name = quoteIdent(wanted.name);
  const enable = `alter table ${table} enable${wanted.mode === 'row' ? ' always' : ''} trigger ${name}`;
  if (found !== undefined && sameTrigger(wanted, found)) return enabled ? [] : [enable];
  const tables = [
    wanted.oldTable === null ? '' : ` old table as ${wanted.oldTable}`,
    wanted.newTable === null ? '' : ` new table as ${wanted.newTable}`,
  ].join('');
  const create =
    `create or replace trigger ${name} after ${wanted.operation} on ${table}` +
    `${tables === '' ? '' : ` referencing${tables}`} for each ${isRowTrigger(wanted) ? 'row' : 'statement'}` +
    ` execute function belfry.${quoteIdent(wanted.functionName)}(${argumentsOf(wanted)})`;
  const fresh = found === undefined && wanted.mode === 'statement';
  return fresh ? [create] : [create, enable];
}

const isRowTrigger = (wanted: DesiredTrigger): boolean => wanted.mode === 'row' && wanted.operation !== 'truncate';

const argumentsOf = (wanted: DesiredTrigger): string =>
  wanted.operation === 'truncate' && wanted.partition ? `'partition'` : '';

/** Whether the trigger is what it should be, but for being switched on. */
export function sameTrigger(wanted: DesiredTrigger, found: InstalledTrigger): boolean {
  return (
    found.functionName === wanted.functionName &&
    found.type === TYPE_BITS[wanted.operation] + (isRowTrigger(wanted) ? TYPE_BITS.row : 0) &&
    found.oldTable === wanted.oldTable &&
    found.newTable === wanted.newTable &&
    found.argumentCount === (argumentsOf(wanted) === '' ? 0 : 1)
  );
}

function recordStatement(wanted: DesiredTrigger): string {
  const values = [wanted.table.schema, wanted.table.name, wanted.name, wanted.source, wanted.operation, wanted.mode];
  return (
    'insert into belfry.capture_trigger (table_schema, table_name, trigger_name, source, operation, capture, columns)\n' +
    `values (${values.map(quoteLiteral).join(', ')}, ${quoteLiteral(JSON.stringify(wanted.columns))})\n` +
    'on conflict (table_schema, table_name, trigger_name) do update set source = excluded.source, operation = excluded.operation,\n' +
    '  capture = excluded.capture, columns = excluded.columns, installed_at = clock_timestamp()'
  );
}

/** Key order does not count: jsonb has its own. */
function canonical(columns: Readonly<Record<string, string>>): string {
  return JSON.stringify(Object.entries(columns).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function obsoleteFunctions(catalog: Catalog, desired: Desired): Step | null {
  const wanted = new Set(desired.functions.map((row) => row.name));
  const obsolete = catalog.functions.filter((row) => !wanted.has(row.name));
  if (obsolete.length === 0) return null;
  const borrowed = obsolete.some((row) => row.owner === CAPTURE_ROLE) ? borrowRole(catalog) : null;
  return {
    changes: obsolete.map((row) => `drop function belfry.${row.name}`),
    table: null,
    statements: [
      ...(borrowed?.before ?? []),
      ...obsolete.map((row) => `drop function if exists belfry.${quoteIdent(row.name)}()`),
      ...(borrowed?.after ?? []),
    ],
  };
}
