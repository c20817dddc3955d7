-- 0018: heads and counters whoever came between; days of the outbox that are dropped without a look at their rows.
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
