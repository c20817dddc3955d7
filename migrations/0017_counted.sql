-- 0017: a dead letter keeps its transaction, so that a retry knows whether counters have seen it; a truncate leaves a count that has seen it.
--
-- Locks: belfry.dead_event ACCESS EXCLUSIVE for an instant (a column without a default, nothing is rewritten); functions.

alter table belfry.dead_event add column xid xid8;
comment on column belfry.dead_event.xid is 'As in the outbox, which may be pruned: counters skip what their count has seen. Null: set aside by a version before; as long as the outbox has the event, its xid is taken.';

create function belfry.withdraw_source(p_term bigint, p_source text, p_event bigint) returns text
  language plpgsql
as $$
declare
  v_ids   bigint[];
  v_epoch text;
begin
  with gone as (
    update belfry.notification_event set removed_at = clock_timestamp()
     where source = p_source and removed_at is null
    returning notification_id
  )
  select array_agg(distinct notification_id) into v_ids from gone;

  update belfry.notification n
     set event_count = s.events, actor_count = s.people, actors = coalesce(s.newest, '{}'),
         withdrawn = s.events = 0, due_at = null, reopen = false
    from unnest(v_ids) g(id)
   cross join lateral (
          select count(*)::integer as events, count(distinct e.actor_id)::integer as people,
                 (array_agg(e.actor_id order by e.at desc) filter (where e.actor_id is not null))[1:8] as newest
            from belfry.notification_event e
           where e.notification_id = g.id and e.removed_at is null) s
   where n.id = g.id;

  delete from belfry.counter
   where source = p_source
     and not exists (select from belfry.outbox o join belfry.source_state s on s.source = o.source
                      where o.id = p_event and pg_visible_in_snapshot(o.xid, s.seed));

  update belfry.relay set epoch = replace(gen_random_uuid()::text, '-', '') where name = 'main' and term = p_term returning epoch into v_epoch;
  if not found then
    raise exception 'another relay leads now' using errcode = 'BF001';
  end if;
  return v_epoch;
end
$$;
comment on function belfry.withdraw_source(bigint, text, bigint) is 'After a TRUNCATE (its outbox id): takes back everything a source brought, sets its counters to 0 unless they were counted since, and begins a new epoch, so that every client fetches anew.';

create or replace function belfry.withdraw_source(p_term bigint, p_source text) returns text
  language sql
  return belfry.withdraw_source(p_term, p_source, null::bigint);
comment on function belfry.withdraw_source(bigint, text) is 'For relays of the version before.';
