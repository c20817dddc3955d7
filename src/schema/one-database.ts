/** Whether `database.url` and `database.listenUrl` lead to one database. */

import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import { connect } from '../postgres/connect.js';

/**
 * For what changes things, or reads by one URL and writes by the other: throws BelfryError `config_invalid` where they lead to two
 * databases, as they do when DATABASE_URL replaces database.url beside a listenUrl that stands in the file.
 */
export async function assertOneDatabase({ path, database }: Config): Promise<void> {
  if (database.url === database.listenUrl) return;
  const [one, other] = await Promise.all([identityOf(database.url), identityOf(database.listenUrl)]);
  if (one.identity === other.identity) return;
  const where = one.name === other.name ? `${other.name} on another server` : other.name;
  throw new BelfryError(
    'config_invalid',
    `database.url leads to database ${one.name}, database.listenUrl to ${where}: correct ${path}, or DATABASE_URL, which replaces database.url alone.`,
  );
}

/** A copy of a cluster has its identifier and its ids, but was started at another time. Plain: a pooler may answer. */
async function identityOf(url: string): Promise<{ readonly name: string; readonly identity: string }> {
  const client = await connect(url, { applicationName: 'belfry cli' });
  try {
    const { rows } = await client.query<{ name: string; identity: string }>(
      `select datname as name, concat_ws(' ', oid, extract(epoch from pg_postmaster_start_time())) as identity
         from pg_database where datname = current_database()`,
    );
    return rows[0] ?? { name: '', identity: url };
  } finally {
    await client.end().catch(() => undefined);
  }
}
