// The version of the Postgres at this URL, for a superuser; exit 1 where there is none, or 14 is newer.
import pg from 'pg';

const client = new pg.Client({ connectionString: process.argv[2], connectionTimeoutMillis: 3_000 });
try {
  await client.connect();
  const { rows } = await client.query(
    `select current_setting('server_version') as version, current_setting('server_version_num')::int >= 140000
            and current_setting('is_superuser')::bool and not pg_is_in_recovery() as usable`,
  );
  if (rows[0].usable) process.stdout.write(rows[0].version);
  else process.exitCode = 1;
  await client.end();
} catch {
  process.exitCode = 1;
}
