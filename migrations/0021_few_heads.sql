-- 0021: few heads and counters are moved by one statement.
--
-- Of a small batch, setting up a statement costs more than its rows do. So up to sixteen are inserted, and updated where they are there, which is
-- one statement instead of one to three. More are moved as 0018 has it: an insert that conflicts costs twice an update.
--
-- Locks: none that anybody waits for; functions are replaced. A relay of an older version calls the new ones.

create or replace function belfry.step_heads(p_steps belfry.head_step[]) returns bigint[]
  language plpgsql
as $$
declare
  v_seqs bigint[];
  v_keys text[];
  v_done belfry.head_step[];
begin
  if cardinality(p_steps) <= 16 then
    with stepped as (
      insert into belfry.head as h (user_id, seq)
      select s.key, s.count from unnest(p_steps) s
      on conflict (user_id) do update set seq = h.seq + excluded.seq
      returning h.user_id, h.seq
    )
    select array_agg(seq), array_agg(user_id) into v_seqs, v_keys from stepped;
    if cardinality(p_steps) > 1 then
      if v_keys is distinct from array(select s.key from unnest(p_steps) s) then
        raise exception 'heads came back in another order';
      end if;
    end if;
    return v_seqs;
  end if;
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
  v_keys   text[];
  v_done   belfry.counter_delta[];
begin
  if cardinality(p_deltas) <= 16 then
    with moved as (
      insert into belfry.counter as c (source, object_id, count)
      select d.source, d.object_id, d.delta from unnest(p_deltas) d
      on conflict (source, object_id) do update set count = c.count + excluded.count
      returning c.source, c.object_id, c.count
    )
    select array_agg(count), array_agg(array[source, object_id]) into v_counts, v_keys from moved;
    if cardinality(p_deltas) > 1 then
      if v_keys is distinct from (select array_agg(array[d.source, d.object_id]) from unnest(p_deltas) d) then
        raise exception 'counters came back in another order';
      end if;
    end if;
    return v_counts;
  end if;
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
