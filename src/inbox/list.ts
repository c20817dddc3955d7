/** The statement of a page of the inbox, put together from what was asked for. Only compiled here; pg runs it like all others. */

import { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler, sql } from 'kysely';
import type { Readable } from './readable.js';
import type { ListQuery } from './types.js';

/** The columns of the inbox that are asked for. */
interface NotificationTable {
  readonly id: string;
  readonly user_id: string;
  readonly seq: string;
  readonly type: string;
  readonly object_kind: string | null;
  readonly object_id: string | null;
  readonly subject_kind: string | null;
  readonly subject_id: string | null;
  readonly actors: string[];
  readonly actor_count: number;
  readonly event_count: number;
  readonly state: 'unseen' | 'seen' | 'read' | 'archived';
  readonly alert: boolean;
  readonly withdrawn: boolean;
  readonly message: string | null;
  readonly data: string | null;
  readonly last_at: Date;
}

interface PositionTable {
  readonly user_id: string;
  readonly seq: string;
  readonly notification_id: string;
}

/** A row as it is read: `actors` without those whom the recipient may not see, of `sampled`. */
export interface NotificationRow extends NotificationTable {
  readonly sampled: number;
  /** Only where the statement does not leave such rows out: its recipient may no longer see it. */
  readonly hidden?: boolean;
}

const statements = new Kysely<{ 'belfry.stream_position': PositionTable; 'belfry.notification': NotificationTable }>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
});

const statesOf = {
  unseen: ['unseen'],
  unread: ['unseen', 'seen'],
  archived: ['archived'],
  present: ['unseen', 'seen', 'read'],
} as const;

/** Newest first, one row more than asked for: whether there is a next page. `before` is a seq. */
export function listQuery(
  userId: string,
  query: ListQuery,
  before: number | null,
  readable: Readable,
): { text: string; values: unknown[] } {
  let statement = statements
    .selectFrom('belfry.stream_position as p')
    .innerJoin('belfry.notification as belfry_n', 'belfry_n.id', 'p.notification_id')
    .innerJoin(sql`(select ${userId}::text as id)`.as('belfry_u'), (join) => join.onTrue())
    .innerJoinLateral(sql`${sql.raw(readable.shunned('belfry_u.id'))}`.as('belfry_h'), (join) => join.onTrue())
    .select([
      'belfry_n.user_id',
      'type',
      'object_kind',
      'object_id',
      'subject_kind',
      'subject_id',
      'actor_count',
      'event_count',
    ])
    .select(['state', 'alert', 'withdrawn', 'message', 'last_at'])
    // bigint and jsonb as the text that pg would not have to interpret.
    .select([
      sql<string>`belfry_n.id::text`.as('id'),
      sql<string>`p.seq::text`.as('seq'),
      sql<string | null>`data::text`.as('data'),
      sql<string[]>`${sql.raw(readable.actors)}`.as('actors'),
      sql<number>`cardinality(belfry_n.actors)`.as('sampled'),
    ])
    .where('p.user_id', '=', userId)
    .where('withdrawn', '=', false)
    .where('state', 'in', statesOf[query.state ?? 'present'])
    .where(sql<boolean>`${sql.raw(readable.condition)}`);
  if (before !== null) statement = statement.where('p.seq', '<', String(before));
  const compiled = statement
    .orderBy('p.seq', 'desc')
    .limit(query.limit + 1)
    .compile();
  return { text: compiled.sql, values: [...compiled.parameters] };
}
