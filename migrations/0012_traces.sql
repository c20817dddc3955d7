-- 0012: how long events took, where their pushes went, and dead letters that wait for the one before.
--
-- Locks: new objects; belfry.dead_event ACCESS EXCLUSIVE for an instant (a column with a constant default, nothing is rewritten);
-- storage settings (SHARE UPDATE EXCLUSIVE).
-- Rows are written about once a second by whoever measured, with an entry per batch or push in arrays, never a row per event.

create table belfry.batch_trace (
  id        bigint        generated always as identity primary key,
  at        timestamptz   not null default clock_timestamp(),
  worker    text          not null,
  seen      pg_snapshot[] not null,
  target    pg_snapshot[] not null,
  after_id  bigint[]      not null,
  batches   integer[]     not null,
  read_us   integer[]     not null,
  stored_us integer[]     not null,
  pushed_us integer[]     not null
);
create index batch_trace_at on belfry.batch_trace (at);
comment on table  belfry.batch_trace           is 'When batches were read, stored and pushed: one row about once a second, the n-th of each array is a batch. Kept for a day.';
comment on column belfry.batch_trace.id        is 'Order.';
comment on column belfry.batch_trace.at        is 'When the row was written; times of batches count back from it.';
comment on column belfry.batch_trace.worker    is 'host:pid:random of the relay.';
comment on column belfry.batch_trace.seen      is 'The cursor after the batch: an event was in the first batch whose cursor is past it.';
comment on column belfry.batch_trace.target    is 'As in belfry.relay.';
comment on column belfry.batch_trace.after_id  is 'As in belfry.relay.';
comment on column belfry.batch_trace.batches   is '1; more where batches came so fast that they share an entry, whose times are the first read and the last push.';
comment on column belfry.batch_trace.read_us   is 'Microseconds before `at`.';
comment on column belfry.batch_trace.stored_us is 'Likewise: the transaction had committed.';
comment on column belfry.batch_trace.pushed_us is 'Likewise: everything was handed to the broker.';

create type belfry.batch_times as (
  seen pg_snapshot, target pg_snapshot, after_id bigint, batches integer, read_us integer, stored_us integer, pushed_us integer
);
comment on type belfry.batch_times is 'An entry of belfry.batch_trace.';

create function belfry.trace_batches(worker text, entries belfry.batch_times[]) returns void
  language plpgsql
as $$
begin
  -- What a crash takes with it is worth less than a write to the disk that the relay's other statements would wait for.
  perform set_config('synchronous_commit', 'off', true);
  insert into belfry.batch_trace (worker, seen, target, after_id, batches, read_us, stored_us, pushed_us)
  select trace_batches.worker, array_agg(e.seen order by n), array_agg(e.target order by n), array_agg(e.after_id order by n),
         array_agg(e.batches order by n), array_agg(e.read_us order by n), array_agg(e.stored_us order by n), array_agg(e.pushed_us order by n)
    from unnest(trace_batches.entries) with ordinality e(seen, target, after_id, batches, read_us, stored_us, pushed_us, n);
end
$$;
comment on function belfry.trace_batches is 'Writes a row of belfry.batch_trace, without waiting for the disk.';

create table belfry.push_trace (
  id       bigint      generated always as identity primary key,
  at       timestamptz not null default clock_timestamp(),
  since    timestamptz not null,
  gateway  text        not null,
  user_ids text[]      not null,
  seqs     bigint[]    not null,
  sockets  integer[]   not null,
  sent_us  integer[]   not null,
  left_out bigint      not null
);
create index push_trace_at on belfry.push_trace (at);
comment on table  belfry.push_trace          is 'Which pushes of inboxes went to how many sockets: one row about once a second and gateway, the n-th of each array is a push. Kept for a day.';
comment on column belfry.push_trace.id       is 'Order.';
comment on column belfry.push_trace.at       is 'When the row was written; times of pushes count back from it.';
comment on column belfry.push_trace.since    is 'When the first push of it was sent.';
comment on column belfry.push_trace.gateway  is 'Names the gateway while it runs.';
comment on column belfry.push_trace.user_ids is 'Whose stream.';
comment on column belfry.push_trace.seqs     is 'Position in it.';
comment on column belfry.push_trace.sockets  is 'Live sockets that it was handed to; who was offline has no entry.';
comment on column belfry.push_trace.sent_us  is 'Microseconds before `at`.';
comment on column belfry.push_trace.left_out is 'Pushes of that time that were too many to be kept.';

create type belfry.push_sockets as (user_id text, seq bigint, sockets integer, sent_us integer);
comment on type belfry.push_sockets is 'An entry of belfry.push_trace.';

create function belfry.trace_pushes(gateway text, left_out bigint, entries belfry.push_sockets[]) returns void
  language plpgsql
as $$
begin
  perform set_config('synchronous_commit', 'off', true);
  insert into belfry.push_trace (gateway, left_out, since, user_ids, seqs, sockets, sent_us)
  select trace_pushes.gateway, trace_pushes.left_out, clock_timestamp() - max(e.sent_us) * interval '1 microsecond',
         array_agg(e.user_id order by n), array_agg(e.seq order by n), array_agg(e.sockets order by n), array_agg(e.sent_us order by n)
    from unnest(trace_pushes.entries) with ordinality e(user_id, seq, sockets, sent_us, n);
end
$$;
comment on function belfry.trace_pushes is 'Writes a row of belfry.push_trace, without waiting for the disk.';

-- Dead letters whose key has an earlier one (config: deadLetters.later = wait).
alter table belfry.dead_event add column waits_for bigint[] not null default '{}';
comment on column belfry.dead_event.waits_for is 'Earlier dead letters of the same key, which must go first; empty for one that failed itself.';

create or replace view belfry.dead_letter as
  select event_id as id, source, op, event_at as at, failed_at, attempts, sqlstate, error, new, old,
         array(select w from unnest(waits_for) w where exists (select from belfry.dead_event b where b.event_id = w)) as waits_for
  from belfry.dead_event;
