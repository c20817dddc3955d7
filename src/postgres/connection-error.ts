/** What is wrong where Postgres can't be reached, and what to do about it. */

import { BelfryError, messageOf, sqlState } from '../errors.js';

/** What went wrong and what to do next, in one line and without the password. */
export function explainConnectionError(error: unknown, url: string): BelfryError {
  if (error instanceof BelfryError) return error;
  const { server, user, database } = describeUrl(url);
  const cause = { cause: error };
  switch (sqlState(error) ?? nodeCode(error)) {
    case '28P01':
      return new BelfryError(
        'database_denied',
        `Wrong password for user ${user} at ${server}: check DATABASE_URL.`,
        cause,
      );
    case '28000':
      if (/no encryption/.test(messageOf(error))) {
        return new BelfryError(
          'database_denied',
          `Postgres at ${server} wants TLS: add sslmode=require (or verify-full) to DATABASE_URL.`,
          cause,
        );
      }
      return new BelfryError(
        'database_denied',
        `Postgres at ${server} refused user ${user}: ${messageOf(error)}. Check DATABASE_URL and pg_hba.conf.`,
        cause,
      );
    case '3D000':
      return new BelfryError(
        'database_unreachable',
        `There is no database ${database} at ${server}: create it, or check DATABASE_URL.`,
        cause,
      );
    case '08P01':
      if (!/startup parameter/.test(messageOf(error))) break;
      return new BelfryError(
        'database_unsuitable',
        `A pooler answers at ${server} (${messageOf(error)}): connect to Postgres directly, or set ` +
          'ignore_startup_parameters = options in PgBouncer.',
        cause,
      );
    case '53300':
      return new BelfryError(
        'database_unreachable',
        `Postgres at ${server} has no connection left: raise max_connections.`,
        {
          ...cause,
          retry: true,
        },
      );
    // A setting that it does not know.
    case '42704':
      if (!/idle_session_timeout/.test(messageOf(error))) break;
      return new BelfryError(
        'database_unsuitable',
        `Postgres at ${server} is too old (${messageOf(error)}): Belfry needs 14 or newer.`,
        cause,
      );
    case '57P03':
      return new BelfryError(
        'database_unreachable',
        `Postgres at ${server} is starting up or shutting down: try again.`,
        {
          ...cause,
          retry: true,
        },
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new BelfryError('database_unreachable', `There is no host of the name in ${server}: check DATABASE_URL.`, {
        ...cause,
        retry: true,
      });
    case 'ERR_INVALID_URL':
      // Without the cause: it holds the whole address, password included.
      return new BelfryError(
        'config_invalid',
        'DATABASE_URL is no address of a Postgres: write postgres://user:password@host:port/database.',
      );
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'CERT_HAS_EXPIRED':
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return new BelfryError(
        'database_denied',
        `The certificate of Postgres at ${server} is not trusted (${messageOf(error)}): name the file of its CA in DATABASE_URL ` +
          '(sslrootcert=…), or use sslmode=require, which encrypts and checks nothing.',
        cause,
      );
    case 'ECONNREFUSED':
    case 'ENOENT':
      return new BelfryError(
        'database_unreachable',
        `Nothing listens at ${server}: start Postgres, or check DATABASE_URL.`,
        {
          ...cause,
          retry: true,
        },
      );
    default:
  }
  if (/does not support SSL/.test(messageOf(error))) {
    return new BelfryError(
      'database_unreachable',
      `Postgres at ${server} has no TLS: switch it on there, or take sslmode out of DATABASE_URL.`,
      cause,
    );
  }
  return new BelfryError('database_unreachable', `No connection to Postgres at ${server}: ${messageOf(error)}`, {
    ...cause,
    retry: true,
  });
}

function nodeCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

function describeUrl(url: string): { server: string; user: string; database: string } {
  // Not what pg can read but URL can't: a socket path, or `key=value` pairs.
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed === null) return { server: 'the address in DATABASE_URL', user: '(unknown)', database: '(unknown)' };
  const host = parsed.hostname !== '' ? decoded(parsed.hostname) : (parsed.searchParams.get('host') ?? 'localhost');
  const user = decoded(parsed.username);
  const database = decoded(parsed.pathname.slice(1));
  return {
    server: `${host}:${parsed.port === '' ? '5432' : parsed.port}`,
    user: user === '' ? '(of this system)' : user,
    database: database === '' ? user : database,
  };
}

/** As it stands where a % in it begins no escape, which pg takes for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
