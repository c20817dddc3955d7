/**
 * Every error that Belfry raises on purpose.
 *
 * `code` is stable and can be switched over exhaustively; `retry` says whether the same call may succeed later without
 * anybody changing anything; the message says what to do next.
 */

export type BelfryErrorCode =
  | 'config_invalid' // the config file or an option is wrong: exit 2
  | 'database_unreachable' // no connection could be made
  | 'database_denied' // wrong password, missing rights
  | 'database_unsuitable' // a standby, too old, a transaction-mode pooler
  | 'not_migrated' // schema belfry is missing or older than this program
  | 'migration_failed'
  | 'lock_busy' // a lock was not granted in time, even after retries
  | 'lease_lost' // another relay leads now
  | 'broker_unavailable'
  | 'port_in_use'
  | 'token_invalid'
  | 'not_found'
  | 'bad_request' // what a client asks for cannot be meant: a wrong argument
  | 'unavailable'
  | 'internal';

export class BelfryError extends Error {
  override readonly name = 'BelfryError';

  constructor(
    readonly code: BelfryErrorCode,
    message: string,
    readonly options: { readonly retry?: boolean; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
  }

  /** Whether the same call may succeed later without anybody changing anything. */
  get retry(): boolean {
    return this.options.retry ?? false;
  }
}

/** The SQLSTATE of an error raised by Postgres, or undefined for any other error: EPIPE, of a socket, has five letters too. */
export function sqlState(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error) || 'syscall' in error) return undefined;
  const { code } = error;
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
