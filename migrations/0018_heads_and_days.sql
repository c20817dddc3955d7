-- 0018: what is inserted after an update, whoever came between them.
--
-- Locks: none that anybody waits for; functions are replaced.

-- As 0005 has them, but for what is inserted: what the update did not find, and not what is not there now. A row that somebody else made
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
