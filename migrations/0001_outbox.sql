-- 0001: the outbox, what was lost on the way to it, and the doorbell.
--
-- Locks: only new objects; nothing that exists is touched.
-- Runs in one transaction, as the owner of the application's tables; no superuser.

create schema if not exists belfry;
comment on schema belfry is 'Belfry: outbox, relay state, inboxes and streams. Everything here can be rebuilt or dropped without touching the application.';

create table belfry.outbox (
  id     bigint      not null generated always as identity (cache 1),
  xid    xid8        not null default pg_current_xact_id(),
  at     timestamptz not null default clock_timestamp(),
  source text        not null,
  op     text        not null,
  new    jsonb,
  old    jsonb,
  primary key (id, at)
) partition by range (at);

create index outbox_xid_id on belfry.outbox (xid, id);

comment on table  belfry.outbox        is 'One row per event, written by triggers and by the SQL API in the writer''s own transaction; append-only, partitioned by day, kept for retention.outbox.';
comment on column belfry.outbox.id     is 'Order within one read of the relay. Gaps are normal (rollback, crash) and mean nothing; it is not commit order.';
comment on column belfry.outbox.xid    is 'The top-level transaction that wrote the row: what the snapshot cursor compares.';
comment on column belfry.outbox.at     is 'When the row was written (not committed), by the database''s clock.';
comment on column belfry.outbox.source is 'Name of the source in the config; names that begin with "belfry." are internal (SQL API, blocks, mutes).';
comment on column belfry.outbox.op     is 'created, removed, changed or truncated for sources; notify, broadcast, announce or revoke for the SQL API.';
comment on column belfry.outbox.new    is 'The mapped columns of the row after the write; null when it was removed.';
comment on column belfry.outbox.old    is 'The mapped columns of the row before the write; null when it is new.';

-- The last net: a missing day never fails a write.
create table belfry.outbox_default partition of belfry.outbox default;
comment on table belfry.outbox_default is 'Rows whose day has no partition of its own. Normally empty.';

create table belfry.lost (
  id       bigint      generated always as identity primary key,
  source   text        not null,
  xid      xid8        not null default pg_current_xact_id(),
  at       timestamptz not null default clock_timestamp(),
  sqlstate text        not null
);
comment on table  belfry.lost          is 'Writes whose event could not be captured (onError: available). The relay repairs what it can and then removes the row.';
comment on column belfry.lost.id       is 'Order of arrival.';
comment on column belfry.lost.source   is 'The source whose trigger failed.';
comment on column belfry.lost.xid      is 'The transaction that lost its event.';
comment on column belfry.lost.at       is 'When it happened, by the database''s clock.';
comment on column belfry.lost.sqlstate is 'Why: the SQLSTATE that the trigger caught.';

-- The doorbell. The relay holds the exclusive lock only while it sleeps; whoever gets the shared one knows that it is awake
-- and will look again before it sleeps. 108187749872249 is 'belfry' in ASCII. Its own block: a failing bell must not undo the event.
-- With the queue more than half full (a stuck listener of somebody else) NOTIFY could fail the backend's COMMIT: then it
-- stays silent and the relay's safety poll finds the row.
create function belfry.ring() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_catalog.pg_try_advisory_xact_lock_shared(108187749872249) and pg_catalog.pg_notification_queue_usage() < 0.5 then
    perform pg_catalog.pg_notify('belfry', '');
  end if;
exception when others then
  null;
end
$$;
comment on function belfry.ring() is 'Wakes a sleeping relay when this transaction commits; does nothing while the relay is awake. Never fails.';
