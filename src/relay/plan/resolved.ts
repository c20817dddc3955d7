/** Rows of the statement that reads and resolves a page (resolve.ts), put together to events. */

import type { Side, SourceEvent, SourceOp } from '../../rules/event.js';

/** Above this many recipients an event is a job of its own: a wide event (wide.ts). */
export const wideRecipients = 1_000;

/** A row of the statement. One event comes as several when it has several recipients. */
export interface ResolvedRow {
  readonly id: string;
  readonly xid: string;
  /** Milliseconds since the epoch. */
  readonly at_ms: number;
  readonly source: string;
  readonly op: string;
  readonly counts: boolean;
  readonly counters_only: boolean;
  /** The row before, as JSON: key, actor, object, subject, route, channels, include. Most events have none. */
  readonly before: string | null;
  readonly a_key: string | null;
  readonly a_actor: string | null;
  readonly a_object: string | null;
  readonly a_subject: string | null;
  readonly a_route: string | null;
  readonly a_channels: (string | null)[] | null;
  readonly a_include: string | null;
  readonly recipient: string | null;
  /** Another row with the key of the row before stands in the table. */
  readonly stands: boolean;
  /** The row itself, for the SQL API and sources without a mapping. */
  readonly raw: string | null;
  /** Of the whole page, on its first row: highest id, number of rows, and the snapshot that the delta ends at. */
  readonly page_last: string;
  readonly page_count: string;
  readonly page_target: string;
}

/** An event that no trigger of a source wrote, or of a source that the config no longer names. */
export interface OtherEvent {
  readonly id: string;
  readonly at: Date;
  readonly source: string;
  readonly op: string;
  /** `new` of the outbox row; its `data` is JSON text, so that no number loses digits. */
  readonly row: Readonly<Record<string, unknown>>;
}

export type PageEvent =
  { readonly kind: 'source'; readonly event: SourceEvent } | { readonly kind: 'other'; readonly event: OtherEvent };

/** Puts rows of the statement together to events, in order of id. `sources`: names of those that are mapped. */
export function eventsOf(rows: readonly ResolvedRow[], sources: Pick<ReadonlySet<string>, 'has'>): PageEvent[] {
  const events: PageEvent[] = [];
  let lastId = '';
  let recipients: string[] = [];
  const known = new Set<string>();
  let rowsOfEvent = 0;
  let after: Writable<Side> | null = null;
  for (const row of rows) {
    if (row.id === lastId) {
      rowsOfEvent += 1;
      if (rowsOfEvent > wideRecipients && after !== null) {
        after.wide = true;
        recipients.length = 0;
      } else if (row.recipient !== null && row.recipient !== '' && !known.has(row.recipient)) {
        known.add(row.recipient);
        recipients.push(row.recipient);
      }
      continue;
    }
    rowsOfEvent = 1;
    after = null;
    lastId = row.id;
    recipients = row.recipient === null || row.recipient === '' ? [] : [row.recipient];
    known.clear();
    for (const recipient of recipients) known.add(recipient);
    if (row.raw !== null || !sources.has(row.source)) {
      const parsed = JSON.parse(row.raw ?? '{}') as Record<string, unknown>;
      events.push({
        kind: 'other',
        event: { id: row.id, at: new Date(row.at_ms), source: row.source, op: row.op, row: parsed },
      });
      continue;
    }
    after = side(
      row.a_key,
      row.a_actor,
      row.a_object,
      row.a_subject,
      row.a_route,
      row.a_channels,
      row.a_include,
      recipients,
    );
    events.push({
      kind: 'source',
      event: {
        id: row.id,
        xid: row.xid,
        at: new Date(row.at_ms),
        source: row.source,
        op: row.op as SourceOp,
        before: row.before === null ? null : side(...(JSON.parse(row.before) as SideRow), []),
        after,
        counts: row.counts,
        countersOnly: row.counters_only,
        keyStands: row.stands,
      },
    });
  }
  return events;
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

type SideRow = [
  key: string | null,
  actor: string | null,
  object: string | null,
  subject: string | null,
  route: string | null,
  channels: (string | null)[] | null,
  include: string | null,
];

function side(
  key: string | null,
  actorId: string | null,
  objectId: string | null,
  subjectId: string | null,
  route: string | null,
  channels: (string | null)[] | null,
  include: string | null,
  recipients: string[],
): Side | null {
  if (key === null) return null;
  return {
    key,
    actorId,
    objectId,
    subjectId,
    route,
    channels: channels === null ? [] : channels.filter((channel) => channel !== null),
    include,
    recipients,
  };
}
