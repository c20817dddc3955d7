/**
 * Does row-level security hide from the current user rows that decide who may hear what? Postgres then shows fewer rows without a word: nobody
 * is blocked, nobody is there, and a post has no owner. So a relay or gateway that would not see them all does not run.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { BelfryError } from '../errors.js';
import { parseTableName } from '../postgres/sql.js';
import { tablesOf } from './columns.js';
import { RELAY_ROLE } from './roles.js';

/** A table of the config of which the current user does not see every row, and who that is; both as in SQL. */
export interface HiddenRows {
  readonly table: string;
  readonly user: string;
}

/**
 * Every row is seen where no policy is active (the owner, unless it is forced; BYPASSRLS), where one of them is `true`, and where one was made
 * for this user or for belfry_relay, which says what they are to see; unless a restrictive one narrows that. Reads the catalogue alone.
 */
export async function hiddenRows(client: pg.ClientBase, config: Config): Promise<HiddenRows[]> {
  const names = [...new Set(tablesOf(config))].map(parseTableName);
  const { rows } = await client.query<HiddenRows>(
    `with policy as (
       select p.polrelid, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) = 'true' as open,
              exists (select from unnest(p.polroles) x(oid) join pg_catalog.pg_roles r on r.oid = x.oid
                       where r.rolname in (current_user, '${RELAY_ROLE}')) as ours
         from pg_catalog.pg_policy p
        where p.polcmd in ('r', '*')
          and exists (select from unnest(p.polroles) x(oid) where x.oid = 0 or pg_has_role(x.oid, 'usage'))
     )
     select format('%I.%I', n.nspname, c.relname) as "table", quote_ident(current_user) as "user"
       from unnest($1::text[], $2::text[]) t(schema, name)
       join pg_catalog.pg_namespace n on n.nspname = t.schema
       join pg_catalog.pg_class     c on c.relnamespace = n.oid and c.relname = t.name
      where row_security_active(c.oid)
        and (not exists (select from policy p where p.polrelid = c.oid and p.polpermissive and (p.open or p.ours))
             or exists (select from policy p where p.polrelid = c.oid and not p.polpermissive and not p.open and not p.ours))
      order by 1`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  return rows;
}

/** What to run so that they are seen. */
export function showRows(hidden: readonly HiddenRows[]): string {
  const policies = hidden.map(
    ({ table, user }) => `create policy belfry on ${table} for select to ${user} using (true);`,
  );
  return `Run as the owner of the tables: ${policies.join(' ')} Or give that user BYPASSRLS.`;
}

/** Throws `database_denied` where rows are hidden. */
export async function assertNothingHidden(client: pg.ClientBase, config: Config): Promise<void> {
  const hidden = await hiddenRows(client, config);
  if (hidden.length === 0) return;
  const tables = hidden.map(({ table }) => table).join(', ');
  throw new BelfryError(
    'database_denied',
    `Row-level security hides rows of ${tables} from user ${hidden[0]?.user ?? ''}. ${showRows(hidden)}`,
  );
}
