/**
 * Everything that can be wrong around Belfry, each with what it means and what to do. Reads only, and needs nothing to be there: no
 * schema, no relay, no database. Where `start` would fail, a check does.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { BelfryError, messageOf, sqlState } from '../errors.js';
import { connect } from '../postgres/connect.js';
import { assertOneDatabase } from '../schema/one-database.js';
import { checkBesides } from './besides.js';
import { fail, ok, several, warn } from './check.js';
import type { Check } from './check.js';
import { checkMapping } from './mapping.js';
import { checkRights } from './rights.js';
import { checkListening, checkPooler, checkServer, standardLimits } from './server.js';
import type { Limits } from './server.js';
import { checkSchema, checkState } from './state.js';
import { checkTokens } from './tokens.js';

export type { Check, Level } from './check.js';

export interface Diagnosis {
  /** Nothing fails; there may be warnings. */
  readonly ok: boolean;
  readonly checks: readonly Check[];
}

/** A database that answers slower than this is not looked at further. */
const queryTimeoutMs = 15_000;

/** Null as config: only the database can be looked at. Throws nothing that has to do with the database. */
export async function diagnose(
  url: string,
  config: Config | null,
  limits: Limits = standardLimits,
): Promise<Diagnosis> {
  const checks = [
    configCheck(config),
    ...(await checkDatabase(url, config, limits)),
    ...(config === null ? [] : [...(await checkBesides(config)), ...(await checkTokens(config))]),
  ];
  return { ok: checks.every(({ level }) => level !== 'fail'), checks };
}

function configCheck(config: Config | null): Check {
  if (config === null) {
    return warn(
      'config',
      'there is no config file: only the database was looked at',
      'Run belfry init, or name the file with --config.',
    );
  }
  const warnings = config.warnings.filter((warning) => !warning.startsWith('auth.'));
  if (warnings.length === 0) return ok('config', `${config.path} is sound`);
  return warn('config', several(warnings), `Correct ${config.path}, or leave it where it is meant.`);
}

async function checkDatabase(url: string, config: Config | null, limits: Limits): Promise<Check[]> {
  let client: pg.Client;
  try {
    client = await connect(url, { applicationName: 'belfry cli', queryTimeoutMs });
  } catch (error) {
    const [detail, ...cure] = messageOf(error).split(/: (?=[a-z])/);
    return [fail('database', detail ?? '', cure.length > 0 ? `${cure.join(': ')}` : 'Check DATABASE_URL.')];
  }
  const checks: Check[] = [ok('database', 'it answers')];
  try {
    const add = (name: string, work: () => Promise<readonly Check[]>): Promise<void> => guarded(checks, name, work);
    await add('pooler', () => checkPooler(client, config));
    await add('server', () => checkServer(client, config, limits));
    if (config !== null) await add('rights', () => checkRights(client, config));
    let migrated = false;
    await add('schema', async () => {
      const found = await checkSchema(client);
      ({ migrated } = found);
      return [found.check];
    });
    if (config !== null) await add('mapping', () => checkMapping(client, config, migrated));
    if (migrated) await add('state', () => checkState(client, config));
    if (config !== null) {
      await add('one_database', () => checkOneDatabase(config));
      await add('listening', () => checkListening(config));
    }
    return checks;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function checkOneDatabase(config: Config): Promise<Check[]> {
  if (config.database.url === config.database.listenUrl) return [];
  try {
    await assertOneDatabase(config);
    return [ok('one_database', 'database.url and database.listenUrl lead to one database')];
  } catch (error) {
    if (!(error instanceof BelfryError) || error.code !== 'config_invalid') throw error;
    const [detail = '', ...cure] = error.message.split(': ');
    return [fail('one_database', detail, cure.join(': '))];
  }
}

/** A check that can't be made is a finding, and keeps no other from being made. */
async function guarded(checks: Check[], name: string, work: () => Promise<readonly Check[]>): Promise<void> {
  try {
    checks.push(...(await work()));
  } catch (error) {
    const cure =
      sqlState(error) === '42501'
        ? 'Use the role that ran belfry migrate, or a member of it.'
        : error instanceof BelfryError
          ? 'Do what it says, then run belfry doctor again.'
          : 'Run belfry doctor again; LOG_LEVEL=debug says more.';
    checks.push(fail(name, `could not be checked: ${messageOf(error)}`, cure));
  }
}
