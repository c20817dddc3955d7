/**
 * A look at the database on a connection of its own, for what runs in transactions: on one that several parts share, the statements of the
 * others would fail or be undone with it.
 */

import type pg from 'pg';
import type { Config } from '../config.js';
import { connect } from '../postgres/connect.js';
import { letGo } from '../postgres/sending.js';

/** A table may be locked, a server silent: the look fails, and is left for the next time. */
const bound = { lockMs: 2_000, answerMs: 10_000 } as const;

export async function onOwnConnection<Found>(
  config: Config,
  look: (client: pg.Client) => Promise<Found>,
): Promise<Found> {
  const client = await connect(config.database.listenUrl, {
    applicationName: 'belfry check',
    session: { lock_timeout: String(bound.lockMs) },
    queryTimeoutMs: bound.answerMs,
  });
  try {
    return await look(client);
  } finally {
    await letGo(client);
  }
}
