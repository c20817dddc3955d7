-- 0005: how a batch is stored: one function, one transaction, one round trip.
--
-- Locks: only new objects; nothing that exists is touched.
-- The relay calls store_batch as a statement of its own, so a relay that freezes never leaves its transaction open.
-- Rows travel as arrays of the types below, which Postgres reads several times faster than JSON. Times are milliseconds
-- since the epoch. Null stands for "no rows", so that nothing is parsed for nothing.

create type belfry.head_step as (key text, count integer);
comment on type belfry.head_step is 'How many positions a stream (of a person or a channel) takes; each key once, in order.';

create type belfry.changed_notification as (
  id bigint, user_id text, seq bigint, head integer, back integer, open boolean, subject_id text, actors text[],
  actor_count integer, event_count integer, withdrawn boolean, alert boolean, reopen boolean, first_ms float8, last_ms float8,
  due_ms float8
);
comment on type belfry.changed_notification is 'seq: its position so far; head: index into the people''s heads; back: how far below the new head its new position is, null for no push.';

create type belfry.new_notification as (
  user_id text, head integer, back integer, type text, group_key text, object_kind text, object_id text, subject_kind text,
  subject_id text, actors text[], actor_count integer, event_count integer, withdrawn boolean, alert boolean, message text, data text,
  first_ms float8, last_ms float8
);
comment on type belfry.new_notification is 'As changed_notification, for one that has no id yet.';

create type belfry.resampled_notification as (id bigint, sample integer);
comment on type belfry.resampled_notification is 'Its newest actors and time must be taken from the stored events again: at most sample actors.';

create type belfry.removed_event as (source text, key text, user_id text);
comment on type belfry.removed_event is 'An event that no longer stands behind a notification.';

create type belfry.added_event as (
  source text, key text, user_id text, notification_id bigint, new_index integer, event_id bigint, actor_id text, at_ms float8
);
comment on type belfry.added_event is 'An event that stands behind a notification: its id, or its index among the new ones.';

create type belfry.counter_delta as (source text, object_id text, delta bigint);
comment on type belfry.counter_delta is 'By how much a counter moves; each counter once.';

create type belfry.logged_event as (channel text, head integer, back integer, event text, actor_id text, data text, data_without_actor text);
comment on type belfry.logged_event is 'A channel event; head: index into the channels'' heads.';

create type belfry.hold as (source text, key text, event_id bigint, until_ms float8);
comment on type belfry.hold is 'A created row that has no recipient yet; until_ms null: it is resolved.';

create type belfry.batch_verdict as (rule text, event_ids bigint[], user_ids text[]);
comment on type belfry.batch_verdict is 'Why these events did not reach these people.';

create type belfry.new_announcement as (event_id bigint, at_ms float8, message text, data text);
comment on type belfry.new_announcement is 'An announcement to everyone.';

create type belfry.dead as (event_id bigint, source text, op text, new text, old text, at_ms float8, sqlstate text, error text);
comment on type belfry.dead is 'An event that could not be processed.';

create function belfry.at_ms(ms float8) returns timestamptz
  language sql immutable parallel safe
  return to_timestamp(ms / 1000);
comment on function belfry.at_ms is 'A time given as milliseconds since the epoch.';

-- Heads and counters: nearly all rows are there, and an update is half of what an insert with a conflict costs. So first
-- the update; what is missing is inserted after it, and then the values are looked up in the order that was asked for.

create function belfry.step_heads(p_steps belfry.head_step[]) returns bigint[]
  language plpgsql
as $$
declare
  v_seqs bigint[];
begin
  with stepped as (
    update belfry.head h set seq = h.seq + s.count
      from unnest(p_steps) with ordinality s(key, count, ord)
     where h.user_id = s.key
    returning h.seq, s.ord
  )
  select array_agg(seq order by ord) into v_seqs from stepped;
  if cardinality(v_seqs) = cardinality(p_steps) then
    return v_seqs;
  end if;
  insert into belfry.head as h (user_id, seq)
  select s.key, s.count from unnest(p_steps) s
   where not exists (select from belfry.head o where o.user_id = s.key)
  on conflict (user_id) do update set seq = h.seq + excluded.seq;
  return array(select h.seq from unnest(p_steps) with ordinality s(key, count, ord) join belfry.head h on h.user_id = s.key order by s.ord);
end
$$;
comment on function belfry.step_heads is 'Moves heads of people on; returns the new heads in the order given.';

create function belfry.move_counters(p_deltas belfry.counter_delta[]) returns bigint[]
  language plpgsql
as $$
declare
  v_counts bigint[];
begin
  with moved as (
    update belfry.counter c set count = c.count + d.delta
      from unnest(p_deltas) with ordinality d(source, object_id, delta, ord)
     where c.source = d.source and c.object_id = d.object_id
    returning c.count, d.ord
  )
  select array_agg(count order by ord) into v_counts from moved;
  if cardinality(v_counts) = cardinality(p_deltas) then
    return v_counts;
  end if;
  insert into belfry.counter as c (source, object_id, count)
  select d.source, d.object_id, d.delta from unnest(p_deltas) d
   where not exists (select from belfry.counter o where o.source = d.source and o.object_id = d.object_id)
  on conflict (source, object_id) do update set count = c.count + excluded.count;
  return array(select c.count from unnest(p_deltas) with ordinality d(source, object_id, delta, ord)
                 join belfry.counter c on c.source = d.source and c.object_id = d.object_id order by d.ord);
end
$$;
comment on function belfry.move_counters is 'Moves counters by deltas; returns the new counts in the order given.';

create function belfry.store_batch(
  p_term          bigint,
  p_seen          pg_snapshot,  -- null leaves the cursor where it is
  p_target        pg_snapshot,
  p_after_id      bigint,
  p_max_id        bigint,
  p_heads         belfry.head_step[],
  p_channel_heads belfry.head_step[],
  p_changed       belfry.changed_notification[],
  p_resampled     belfry.resampled_notification[],
  p_new           belfry.new_notification[],
  p_removed       belfry.removed_event[],
  p_added         belfry.added_event[],  -- those that were never there
  p_revived       belfry.added_event[],  -- and those that were undone
  p_counters      belfry.counter_delta[],
  p_logged        belfry.logged_event[],
  p_held          belfry.hold[],
  p_verdicts      belfry.batch_verdict[],
  p_announcements belfry.new_announcement[],
  p_dead          belfry.dead[]
) returns json
  language plpgsql
as $$
declare
  v_heads     bigint[];
  v_offsets   bigint[];
  v_keys      text[];
  v_ids       bigint[];
  v_counts    bigint[];
  v_done      integer;
  v_changed   json;
  v_resampled json;
  v_announced json;
begin
  -- Heads first, in order: this is what every writer of a stream waits for.
  if p_heads is not null then
    v_heads := belfry.step_heads(p_heads);
  end if;

  if p_channel_heads is not null then
    with stepped as (
      insert into belfry.channel_head as h (channel, "offset")
      select s.key, s.count from unnest(p_channel_heads) s
      on conflict (channel) do update set "offset" = h."offset" + excluded."offset"
      returning h.channel, h."offset"
    )
    select array_agg("offset"), array_agg(channel) into v_offsets, v_keys from stepped;
    if v_keys is distinct from array(select s.key from unnest(p_channel_heads) s) then
      raise exception 'channel heads came back in another order';
    end if;
  end if;

  -- What a person archived meanwhile takes no further event: the batch is decided anew.
  if p_changed is not null then
    with done as (
      update belfry.notification n
         set open        = c.open,
             subject_id  = c.subject_id,
             actors      = c.actors,
             actor_count = c.actor_count,
             event_count = c.event_count,
             withdrawn   = c.withdrawn,
             first_at    = belfry.at_ms(c.first_ms),
             last_at     = belfry.at_ms(c.last_ms),
             due_at      = belfry.at_ms(c.due_ms),
             reopen      = c.back is null and (n.reopen or c.reopen),
             state       = case when c.back is not null and (n.reopen or c.reopen) and n.state in ('seen', 'read') and not c.withdrawn
                                then 'unseen' else n.state end,
             alert       = case when c.back is null then n.alert
                                else c.alert or ((n.reopen or c.reopen) and n.state = 'read' and not c.withdrawn) end,
             shown       = case when c.back is null then n.shown else not c.withdrawn end,
             seq         = case when c.back is null then n.seq else v_heads[c.head] - c.back end,
             pushed_at   = case when c.back is null then n.pushed_at else clock_timestamp() end
        from unnest(p_changed) c
       where n.id = c.id and (n.state <> 'archived' or not c.reopen)
      returning n.id, n.seq, n.state, n.alert, c.back
    )
    select count(*), json_agg(json_build_array(id::text, seq, state, alert)) filter (where back is not null)
      into v_done, v_changed from done;
    if v_done <> cardinality(p_changed) then
      raise exception 'a notification changed meanwhile' using errcode = 'BF002';
    end if;

    update belfry.stream_position p
       set seq = v_heads[c.head] - c.back
      from unnest(p_changed) c
     where c.back is not null and p.user_id = c.user_id and p.seq = c.seq;
  end if;

  if p_new is not null then
    -- Ids are given in the order of the rows.
    with made as (
      insert into belfry.notification (
        user_id, seq, type, group_key, object_kind, object_id, subject_kind, subject_id, actors, actor_count, event_count,
        withdrawn, shown, alert, message, data, first_at, last_at)
      select n.user_id, v_heads[n.head] - n.back, n.type, n.group_key, n.object_kind, n.object_id, n.subject_kind,
             n.subject_id, n.actors, n.actor_count, n.event_count, n.withdrawn, not n.withdrawn, n.alert, n.message, n.data::jsonb,
             belfry.at_ms(n.first_ms), belfry.at_ms(n.last_ms)
        from unnest(p_new) n
      returning id, user_id, seq
    ), placed as (
      insert into belfry.stream_position (user_id, seq, notification_id) select user_id, seq, id from made
    )
    select array_agg(id order by id) into v_ids from made;
  end if;

  if p_removed is not null then
    update belfry.notification_event e
       set removed_at = clock_timestamp()
      from unnest(p_removed) r
     where e.source = r.source and e.key = r.key and e.user_id = r.user_id;
  end if;

  if p_added is not null then
    insert into belfry.notification_event (source, key, user_id, notification_id, event_id, actor_id, at)
    select a.source, a.key, a.user_id, coalesce(a.notification_id, v_ids[a.new_index]), a.event_id, a.actor_id, belfry.at_ms(a.at_ms)
      from unnest(p_added) a;
  end if;

  if p_revived is not null then
    update belfry.notification_event e
       set notification_id = coalesce(a.notification_id, v_ids[a.new_index]), event_id = a.event_id, actor_id = a.actor_id,
           at = belfry.at_ms(a.at_ms), removed_at = null
      from unnest(p_revived) a
     where e.source = a.source and e.key = a.key and e.user_id = a.user_id;
  end if;

  -- After an undo the newest actors come from what still stands behind the notification.
  if p_resampled is not null then
    with done as (
      update belfry.notification n
         set actors = s.actors, last_at = s.last_at
        from unnest(p_resampled) c
       cross join lateral (
              select coalesce(array_agg(x.actor_id order by x.at desc, x.event_id desc), '{}') as actors, max(x.at) as last_at
                from (select e.actor_id, max(e.at) as at, max(e.event_id) as event_id
                        from belfry.notification_event e
                       where e.notification_id = c.id and e.removed_at is null and e.actor_id is not null
                       group by e.actor_id
                       order by 2 desc, 3 desc
                       limit c.sample) x) s
       where n.id = c.id and s.last_at is not null
      returning n.id, n.actors, n.last_at
    )
    select json_agg(json_build_array(id::text, actors, last_at)) into v_resampled from done;
  end if;

  if p_counters is not null then
    v_counts := belfry.move_counters(p_counters);
  end if;

  if p_logged is not null then
    insert into belfry.channel_event (channel, "offset", event, actor_id, data, data_without_actor)
    select l.channel, v_offsets[l.head] - l.back, l.event, l.actor_id, l.data::jsonb, l.data_without_actor::jsonb from unnest(p_logged) l;
  end if;

  if p_held is not null then
    insert into belfry.held as h (source, key, event_id, until)
    select x.source, x.key, x.event_id, belfry.at_ms(x.until_ms) from unnest(p_held) x where x.until_ms is not null
    on conflict (source, key) do update set event_id = excluded.event_id, until = excluded.until;
    delete from belfry.held h using unnest(p_held) x where x.until_ms is null and h.source = x.source and h.key = x.key;
  end if;

  if p_verdicts is not null then
    insert into belfry.verdict (rule, event_ids, user_ids) select v.rule, v.event_ids, v.user_ids from unnest(p_verdicts) v;
  end if;

  if p_announcements is not null then
    with done as (
      insert into belfry.announcement as a (event_id, at, message, data)
      select x.event_id, belfry.at_ms(x.at_ms), x.message, x.data::jsonb from unnest(p_announcements) x
      on conflict (event_id) do nothing
      returning a.id, a.event_id
    )
    select json_agg(json_build_array(id::text, event_id::text)) into v_announced from done;
  end if;

  if p_dead is not null then
    insert into belfry.dead_event as d (event_id, source, op, new, old, event_at, sqlstate, error)
    select x.event_id, x.source, x.op, x.new::jsonb, x.old::jsonb, belfry.at_ms(x.at_ms), x.sqlstate, x.error from unnest(p_dead) x
    on conflict (event_id) do update
       set attempts = d.attempts + 1, failed_at = clock_timestamp(), sqlstate = excluded.sqlstate, error = excluded.error;
  end if;

  -- The fence. At the end, so that the row is not locked for long: the lease is renewed on it.
  update belfry.relay r
     set seen = coalesce(p_seen, r.seen),
         target = case when p_seen is null then r.target else p_target end,
         after_id = coalesce(p_after_id, r.after_id),
         max_id = greatest(r.max_id, p_max_id),
         read_at = case when p_seen is null then r.read_at else clock_timestamp() end
   where r.name = 'main' and r.term = p_term;
  if not found then
    raise exception 'another relay leads now' using errcode = 'BF001';
  end if;

  return json_build_object('heads', v_heads, 'offsets', v_offsets, 'ids', v_ids, 'counts', v_counts, 'changed', v_changed,
                           'resampled', v_resampled, 'announced', v_announced);
end
$$;
comment on function belfry.store_batch is 'Stores what the rules decided for a batch, moves the cursor, and gives back the ids and positions that were assigned. SQLSTATE BF001: the term is over; BF002: decide anew.';

create function belfry.withdraw_source(p_term bigint, p_source text) returns text
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

  delete from belfry.counter where source = p_source;

  update belfry.relay set epoch = replace(gen_random_uuid()::text, '-', '') where name = 'main' and term = p_term returning epoch into v_epoch;
  if not found then
    raise exception 'another relay leads now' using errcode = 'BF001';
  end if;
  return v_epoch;
end
$$;
comment on function belfry.withdraw_source is 'After a TRUNCATE: takes back everything a source brought, sets its counters to 0 and begins a new epoch, so that every client fetches anew.';
