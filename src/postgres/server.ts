/** What the server is, and whether Belfry can run on it. */

import type pg from 'pg';
import { BelfryError } from '../errors.js';

export interface ServerInfo {
  /** server_version_num, e.g. 180004. */
  readonly version: number;
  readonly standby: boolean;
  /** Identity of the cluster, made by initdb; a dump restored elsewhere has another one. */
  readonly systemIdentifier: string;
  /** Eight hex digits that change with every promotion; null on a standby. */
  readonly timeline: string | null;
  readonly maxPreparedTransactions: number;
}

/** Oldest Postgres that Belfry runs on: 140000 is version 14. */
const minimumVersion = 140_000;

export async function serverInfo(client: pg.ClientBase | pg.Pool): Promise<ServerInfo> {
  const { rows } = await client.query<{
    version: number;
    standby: boolean;
    system_identifier: string;
    timeline: string | null;
    max_prepared_transactions: number;
  }>(`
    select current_setting('server_version_num')::int          as version,
           pg_is_in_recovery()                                 as standby,
           (select system_identifier from pg_control_system()) as system_identifier,
           case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline,
           current_setting('max_prepared_transactions')::int   as max_prepared_transactions`);
  const row = rows[0];
  if (row === undefined) throw new BelfryError('internal', 'Postgres answered without a row about itself.');
  return {
    version: row.version,
    standby: row.standby,
    systemIdentifier: row.system_identifier,
    timeline: row.timeline,
    maxPreparedTransactions: row.max_prepared_transactions,
  };
}

/** Throws `database_unsuitable` for a Postgres older than 14 and for a standby. */
export function assertSuitable(info: Pick<ServerInfo, 'version' | 'standby'>): void {
  if (info.version < minimumVersion) {
    const have = `${Math.floor(info.version / 10_000)}.${info.version % 10_000}`;
    throw new BelfryError('database_unsuitable', `This is Postgres ${have}; Belfry needs 14 or newer.`);
  }
  if (info.standby) {
    throw new BelfryError('database_unsuitable', 'This Postgres is a standby: point DATABASE_URL at the primary.', {
      retry: true,
    });
  }
}
