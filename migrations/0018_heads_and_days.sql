-- 0018: heads and counters whoever came between; days of the outbox that are made and dropped without a look at rows that writers wait for.
--
-- Locks: none that anybody waits for; functions are replaced.

-- Heads and counters are as 0005 has them, but for what is inserted: what the update did not find, and not what is not there now. A row that somebody else made
-- in between was not stepped by the update, so it must not be left out here.

create or replace function belfry.step_heads(p_steps belfry.head_step[]) returns bigint[]
  language plpgsql
as $$
declare
  v_seqs bigint[];
  v_done belfry.head_step[];
begin
  with stepped as (
    update belfry.head h set seq = h.seq + s.count
      from unnest(p_steps) with ordinality s(key, count, ord)
     where h.user_id = s.key
    returning h.seq, s.key, s.count, s.ord
  )
  select array_agg(seq order by ord), array_agg((key, count)::belfry.head_step) into v_seqs, v_done from stepped;
  if cardinality(v_seqs) = cardinality(p_steps) then
    return v_seqs;
  end if;
  -- Except, since the relay's session forbids the joins that would not look through one array for each key of the other.
  insert into belfry.head as h (user_id, seq)
  select m.key, m.count from (select key, count from unnest(p_steps) except all select key, count from unnest(v_done)) m
   order by m.key collate "C"
  on conflict (user_id) do update set seq = h.seq + excluded.seq;
  return array(select h.seq from unnest(p_steps) with ordinality s(key, count, ord) join belfry.head h on h.user_id = s.key order by s.ord);
end
$$;

create or replace function belfry.move_counters(p_deltas belfry.counter_delta[]) returns bigint[]
  language plpgsql
as $$
declare
  v_counts bigint[];
  v_done   belfry.counter_delta[];
begin
  with moved as (
    update belfry.counter c set count = c.count + d.delta
      from unnest(p_deltas) with ordinality d(source, object_id, delta, ord)
     where c.source = d.source and c.object_id = d.object_id
    returning c.count, d.source, d.object_id, d.delta, d.ord
  )
  select array_agg(count order by ord), array_agg((source, object_id, delta)::belfry.counter_delta) into v_counts, v_done from moved;
  if cardinality(v_counts) = cardinality(p_deltas) then
    return v_counts;
  end if;
  insert into belfry.counter as c (source, object_id, count)
  select m.source, m.object_id, m.delta
    from (select source, object_id, delta from unnest(p_deltas) except all select source, object_id, delta from unnest(v_done)) m
   order by m.source, m.object_id
  on conflict (source, object_id) do update set count = c.count + excluded.count;
  return array(select c.count from unnest(p_deltas) with ordinality d(source, object_id, delta, ord)
                 join belfry.counter c on c.source = d.source and c.object_id = d.object_id order by d.ord);
end
$$;

-- As 0010 has it, but nothing looks through the rows: its age is that of the partition's end, and what is unread is asked for in two
-- parts with literals, which an index answers, also while writers wait for the lock. No other day is locked.
create or replace function belfry.drop_partition(name text, kept interval) returns text
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
as $$
declare
  v_end    timestamptz;
  v_seen   pg_snapshot;
  v_wanted boolean;
begin
  if (drop_partition.name ~ '^outbox_[0-9]{8}$') is not true then
    raise invalid_parameter_value using message = 'belfry.drop_partition: name must be that of a day, such as outbox_20260115';
  end if;
  select (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz into v_end
    from pg_class c join pg_inherits i on i.inhrelid = c.oid
   where c.oid = to_regclass('belfry.' || drop_partition.name) and i.inhparent = 'belfry.outbox'::regclass;
  if (v_end <= clock_timestamp() - kept) is not true then
    return 'young';
  end if;
  -- Without the lock first: a partition that may not be dropped yet costs nobody a wait.
  for i in 1 .. 2 loop
    select r.seen into v_seen from belfry.relay r;
    execute format('select exists (select from belfry.%1$I where xid >= %2$L::xid8) or exists (select from belfry.%1$I where xid = any (%3$L::xid8[]))
                        or exists (select from belfry.replay_job j where j.mode <> ''retry'' and j.state in (''waiting'', ''running'')
                                      and j.after_id < (select max(id) from belfry.%1$I))',
                   drop_partition.name, pg_snapshot_xmax(v_seen), array(select pg_snapshot_xip(v_seen)))
      into v_wanted;
    if v_wanted then
      return 'unread';
    end if;
    if i = 1 then
      execute format('lock table only belfry.outbox, only belfry.%I in access exclusive mode', drop_partition.name);
    end if;
  end loop;
  execute format('drop table belfry.%I', drop_partition.name);
  return 'dropped';
end
$$;
comment on function belfry.drop_partition is 'Drops the partition of a day: dropped, young (rows of that day are to be kept), or unread (by the relay, or by a replay under way).';

-- Attaching a day looks through all of the default partition while nobody can write, unless a constraint says that nothing of that day is in
-- it. So where that holds much, such constraints come first: put up and taken down in an instant, verified while everybody writes. As long
-- as one stands, nothing of its day can be written: see outbox/partitions.ts.

-- A text, so that it does not go with the table (0011).
create function belfry.default_is_filled() returns boolean
  language sql stable
as $$
  select pg_catalog.pg_relation_size('belfry.outbox_default') > 8388608
$$;
comment on function belfry.default_is_filled() is 'Whether the default partition is too big to be looked through while writers wait (8 MB: some 10 ms).';

create function belfry.exclude_days(days date[]) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute (select 'alter table belfry.outbox_default ' || string_agg(format('drop constraint if exists %1$I, add constraint %1$I check (at < %2$L or at >= %3$L) not valid',
                    'without_' || to_char(d, 'YYYYMMDD'), d::timestamp at time zone 'UTC', (d + 1)::timestamp at time zone 'UTC'), ', ')
             from unnest(days) d);
end
$$;
comment on function belfry.exclude_days(date[]) is 'Forbids rows of these days (UTC) in the default partition, for make_partition.';

create function belfry.verify_excluded_days() returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_validations text;
begin
  select string_agg(format('validate constraint %I', c.conname), ', ') into v_validations
    from pg_constraint c
   where c.conrelid = 'belfry.outbox_default'::regclass and c.conname ~ '^without_[0-9]{8}$';
  if v_validations is not null then
    execute 'alter table belfry.outbox_default ' || v_validations;
  end if;
end
$$;
comment on function belfry.verify_excluded_days() is 'Looks through the default partition for rows of the excluded days (SHARE UPDATE EXCLUSIVE: writers go on). Fails with 23514 if there is one.';

create function belfry.admit_days() returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_drops text;
begin
  select string_agg(format('drop constraint %I', c.conname), ', ') into v_drops
    from pg_constraint c
   where c.conrelid = 'belfry.outbox_default'::regclass and c.conname ~ '^without_[0-9]{8}$';
  if v_drops is not null then
    execute 'alter table belfry.outbox_default ' || v_drops;
  end if;
end
$$;
comment on function belfry.admit_days() is 'Ends what exclude_days began, also where that was left behind by a crash.';

-- As 0010 has it, but for the two parts about days that were excluded, and default partitions that are too big.
create or replace function belfry.make_partition(day date) returns text
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name     text        := 'outbox_' || to_char(day, 'YYYYMMDD');
  v_without  text        := 'without_' || to_char(day, 'YYYYMMDD');
  v_from     timestamptz := day::timestamp at time zone 'UTC';
  v_to       timestamptz := (day + 1)::timestamp at time zone 'UTC';
  v_excluded boolean;
begin
  -- One maker at a time; the doorbell's key plus 2.
  perform pg_advisory_xact_lock(108187749872251);
  if to_regclass('belfry.' || v_name) is not null then
    return 'there';
  end if;
  v_excluded := exists (select from pg_constraint c
                         where c.conrelid = 'belfry.outbox_default'::regclass and c.conname = v_without and c.convalidated);
  if not v_excluded and belfry.default_is_filled() then
    return 'left';
  end if;
  execute format('create table belfry.%I (like belfry.outbox including all excluding identity)', v_name);
  execute format('comment on table belfry.%I is %L', v_name, 'Events of ' || to_char(day, 'YYYY-MM-DD') || ' (UTC).');
  if not v_excluded and exists (select from belfry.outbox_default d where d.at >= v_from and d.at < v_to) then
    -- Writers of this day write to the default partition: they wait while its rows are moved, so many are left there.
    lock table belfry.outbox_default in access exclusive mode;
    if (select count(*) from (select from belfry.outbox_default d where d.at >= v_from and d.at < v_to limit 2001) few) > 2000 then
      execute format('drop table belfry.%I', v_name);
      return 'left';
    end if;
    execute format('with moved as (delete from belfry.outbox_default where at >= $1 and at < $2 returning *) insert into belfry.%I select * from moved', v_name)
      using v_from, v_to;
  end if;
  execute format('alter table belfry.outbox attach partition belfry.%I for values from (%L) to (%L)', v_name,
                 to_char(day, 'YYYY-MM-DD') || ' 00:00+00', to_char(day + 1, 'YYYY-MM-DD') || ' 00:00+00');
  if v_excluded then
    execute format('alter table belfry.outbox_default drop constraint %I', v_without);
  end if;
  return 'made';
end
$$;
comment on function belfry.make_partition is 'Makes the partition of a day (UTC): made, there (it was already), or left (the default partition holds too many rows, of it or at all; see exclude_days).';

revoke all on function belfry.exclude_days(date[])    from public;
revoke all on function belfry.verify_excluded_days()  from public;
revoke all on function belfry.admit_days()            from public;

-- Those who run as this role must not stand still until somebody runs belfry roles again.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'belfry_relay') then
    grant execute on function belfry.exclude_days(date[]), belfry.verify_excluded_days(), belfry.admit_days() to belfry_relay;
  end if;
end
$$;
