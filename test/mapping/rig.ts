/** A small schema, a mapping for it, and what people heard: rows in, `recipient type actor object` out. Real triggers on a real Postgres. */

import { installCapture } from '../../src/capture/install.js';
import type { Publication } from '../../src/broker/broker.js';
import { startBatches } from '../relay/batches.js';
import type { Batches } from '../relay/batches.js';
import { createTestDatabase } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import { testSecret } from '../support/social.js';

export interface Frame {
  readonly event: string;
  readonly data: {
    readonly id: string;
    readonly type: string;
    readonly user_id?: string;
    readonly message?: string;
    readonly data?: {
      readonly alert: boolean;
      readonly actor_count: number;
      readonly object?: { readonly kind: string; readonly id: string };
    };
  };
}

export interface Mapping {
  readonly database: TestDatabase;
  readonly batches: Batches;
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
  /**
   * Runs the SQL and processes what it brought: `2 like 1 post:10` (recipient, type, actor, object), with `!` at the end where it rings;
   * `2 -like` is withdrawn. Sorted.
   */
  heard(text?: string, values?: unknown[]): Promise<string[]>;
  /** Everything published by SQL, as it is. */
  published(text?: string): Promise<Publication[]>;
  /** Rules of what was suppressed by SQL: `2 blocked`. */
  suppressed(text: string): Promise<string[]>;
  stop(): Promise<void>;
}

/** `rest` are further top-level keys as YAML, `sources` the list of sources. */
export async function startMapping(tables: string, sources: string, rest = ''): Promise<Mapping> {
  const database = await createTestDatabase({ prepare: tables });
  const text = `
version: 1
database: { url: "${database.url}" }
auth: { secret: ${testSecret}, issuer: null, audience: null }
${rest}
sources:
${sources}`;
  const batches = await startBatches(database, text);
  const client = await database.client();
  await installCapture(client, batches.config);
  const mapping: Mapping = {
    database,
    batches,
    sql: async (statement, values) => (await client.query<Record<string, unknown>>(statement, values)).rows,
    async published(statement) {
      if (statement !== undefined) await client.query(statement);
      await batches.run();
      return batches.heard();
    },
    async heard(statement, values) {
      if (statement !== undefined) await client.query(statement, values);
      await batches.run();
      return heardOf(batches.heard());
    },
    async suppressed(statement) {
      const before = await client.query<{ id: string }>('select coalesce(max(id), 0)::text as id from belfry.verdict');
      await client.query(statement);
      await batches.run();
      batches.heard();
      const { rows } = await client.query<{ what: string }>(
        `select u || ' ' || v.rule as what from belfry.verdict v, unnest(v.user_ids) u where v.id > $1 order by 1`,
        [before.rows[0]?.id],
      );
      return rows.map(({ what }) => what);
    },
    async stop() {
      await batches.stop();
      await database.drop();
    },
  };
  return mapping;
}

function heardOf(publications: readonly Publication[]): string[] {
  const lines = publications.flatMap((publication) => {
    if (publication.to !== 'user') return [];
    const frame = JSON.parse(publication.frame) as Frame;
    const { type, user_id: actor, data } = frame.data;
    if (frame.event === 'withdrawn') return [`${publication.userId} -${type}`];
    if (frame.event !== 'notification') return [];
    const object = data?.object === undefined ? '' : ` ${data.object.kind}:${data.object.id}`;
    return [`${publication.userId} ${type} ${actor ?? 'nobody'}${object}${data?.alert === true ? '!' : ''}`];
  });
  return lines.sort();
}
