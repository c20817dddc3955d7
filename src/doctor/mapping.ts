/** What the config says against what the database has: tables, triggers, partitions, columns, indexes. */

import type pg from 'pg';
import { readCatalog } from '../capture/catalog.js';
import { capturedTables } from '../capture/install.js';
import { configProblems } from '../capture/problems.js';
import { verifyCapture } from '../capture/verify.js';
import type { HealthState, TriggerHealth } from '../capture/verify.js';
import type { Config } from '../config.js';
import { counted } from '../counted.js';
import { fail, ok, several, warn } from './check.js';
import type { Check } from './check.js';
import { missingIndexes } from './indexes.js';

export async function checkMapping(client: pg.ClientBase, config: Config, migrated: boolean): Promise<Check[]> {
  const catalog = await readCatalog(client, capturedTables(config));
  const problems = await configProblems(client, config, catalog);
  const checks: Check[] = [
    problems.length === 0
      ? ok(
          'mapping',
          `${counted(config.sources.length, 'source')}; every table, column and query of the config is there`,
        )
      : fail(
          'mapping',
          several(problems, 20),
          `Correct ${config.path}, or bring back what is missing; then run belfry migrate.`,
        ),
  ];
  checks.push(...triggers(migrated ? await verifyCapture(client, config) : null, config));
  const indexes = await missingIndexes(client, config);
  checks.push(
    indexes.length === 0
      ? ok('indexes', 'every look-up for recipients and privacy has its index')
      : warn(
          'indexes',
          `look-ups without an index: ${several(
            indexes.map(({ what }) => what),
            20,
          )}`,
          `Run, outside of a transaction: ${indexes.map(({ sql }) => `${sql};`).join(' ')}`,
        ),
  );
  return checks;
}

function triggers(health: readonly TriggerHealth[] | null, config: Config): Check[] {
  if (health === null) {
    return config.sources.length === 0
      ? []
      : [fail('triggers', 'there are no triggers, since schema belfry is missing', 'Run belfry migrate.')];
  }
  const wrong = (...states: HealthState[]): TriggerHealth[] => health.filter(({ state }) => states.includes(state));
  const told = (rows: readonly TriggerHealth[]): string =>
    several([...new Set(rows.map(({ source, table, detail }) => `${source} on ${table}: ${detail ?? ''}`))]);
  const broken = wrong('missing', 'disabled', 'drifted');
  const [own, below] = [broken.filter(({ partition }) => !partition), broken.filter(({ partition }) => partition)];
  const columns = wrong('column gone');
  const retyped = wrong('column retyped');
  const migrate = 'Run belfry migrate. A relay that runs does so by itself within a minute, where it owns the tables.';
  return [
    own.length === 0
      ? ok('triggers', `${String(health.length)} triggers are as they should be`)
      : fail('triggers', told(own), migrate),
    below.length === 0
      ? ok('partitions', 'every partition is captured')
      : warn('partitions', `writes straight into these are not captured: ${told(below)}`, migrate),
    columns.length > 0
      ? fail('columns', told(columns), `Correct ${config.path}, then run belfry migrate.`)
      : retyped.length > 0
        ? warn('columns', told(retyped), 'Run belfry migrate to accept the new types.')
        : ok('columns', 'every mapped column is there, of the type that it had'),
  ];
}
