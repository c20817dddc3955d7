-- 0011: what the repair of lost events needs: since when a source was deaf, what was repaired, an outbox that somebody dropped.
--
-- Locks: ACCESS EXCLUSIVE on belfry.lost for a moment; a capture that fails in it records nothing.

alter table belfry.lost add column since timestamptz default now();
comment on column belfry.lost.since is 'When the loss may have begun: the start of the transaction. Rows of the source that were created between since and at and stand in no event are captured again. Null: that is not known.';

create table belfry.repair (
  id         bigint      generated always as identity primary key,
  at         timestamptz not null default clock_timestamp(),
  source     text        not null,
  writes     integer     not null,
  sqlstates  text[]      not null,
  since      timestamptz,
  recaptured integer,
  retracted  integer     not null
);
comment on table  belfry.repair            is 'Losses that the relay repaired, as far as they can be; kept as long as the outbox.';
comment on column belfry.repair.id         is 'Order of the repairs.';
comment on column belfry.repair.at         is 'When it was repaired.';
comment on column belfry.repair.source     is 'The source that lost events.';
comment on column belfry.repair.writes     is 'Rows of belfry.lost: transactions that lost events, or one for a source that was deaf for a while.';
comment on column belfry.repair.sqlstates  is 'Why they were lost.';
comment on column belfry.repair.since      is 'Where the loss began; null where that is not known.';
comment on column belfry.repair.recaptured is 'Rows that were captured again. Null: the source has no time column, or nobody knows since when; their notifications are lost.';
comment on column belfry.repair.retracted  is 'Rows that are gone, and whose notifications were withdrawn.';

-- belfry.outbox and belfry.lag as 0001 and 0006 make them (test/schema/restore.test.ts compares), for a database in which somebody
-- dropped them. Ids go on above all that were ever read. What was unread is lost with the table: for every source given.
create function belfry.restore_outbox(p_sources text[]) returns boolean
  language plpgsql
as $$
declare
  v_gone boolean := to_regclass('belfry.outbox') is null;
  v_next bigint;
begin
  if not v_gone and to_regclass('belfry.lag') is not null then
    return false;
  end if;

  if v_gone then
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
    create table belfry.outbox_default partition of belfry.outbox default;
    comment on table belfry.outbox_default is 'Rows whose day has no partition of its own. Normally empty.';

    select 1 + greatest((select max(greatest(r.max_id, r.after_id)) from belfry.relay r),
                        (select max(e.event_id) from belfry.notification_event e),
                        (select max(d.event_id) from belfry.dead_event d), 0)
      into v_next;
    execute format('alter table belfry.outbox alter column id restart with %s', v_next);

    insert into belfry.lost (source, since, sqlstate)
    select s.name, r.read_at - interval '1 second', '42P01' from unnest(p_sources) s(name), belfry.relay r;
  end if;

  create or replace view belfry.lag as
    select coalesce(sum(o.events), 0)::bigint as events,
           coalesce(extract(epoch from clock_timestamp() - min(o.oldest)), 0)::float8 as seconds
      from belfry.relay r
     cross join lateral (
            select count(*) as events, min(o.at) as oldest
              from belfry.outbox o
             where o.xid >= pg_snapshot_xmin(r.seen)
               and not pg_visible_in_snapshot(o.xid, r.seen)
               and (r.target is null or o.id > r.after_id or not pg_visible_in_snapshot(o.xid, r.target))
           ) o;
  comment on view belfry.lag is 'What the relay has not read yet: events, and the age of the oldest in seconds.';
  return true;
end
$$;
comment on function belfry.restore_outbox(text[]) is 'Makes belfry.outbox anew where it was dropped, and records that the sources given lost what was unread. Called by belfry migrate. False: it is there.';
revoke all on function belfry.restore_outbox(text[]) from public;
