-- 0023: a mark leaves what nobody has seen yet.
--
-- What came into a notification and waits for the end of its window went with a mark of the rest: it came up as seen or read, or not at all.
--
-- Locks: none that anybody waits for (two functions are replaced). A relay of an older version goes on.

-- As 0006 has it, but for reopen and due_at.
create or replace function belfry.mark(p_user text, p_state text, p_ids bigint[], p_through bigint, p_announcements_through bigint)
returns table (seq bigint, changed boolean)
  language plpgsql
as $$
declare
  v_seq   bigint;
  v_ids   bigint[];
  v_count integer;
begin
  -- The head first, as every writer of a stream.
  insert into belfry.head as h (user_id, seq) values (p_user, 0)
  on conflict (user_id) do update set seq = h.seq
  returning h.seq into v_seq;

  if p_announcements_through is not null then
    insert into belfry.announcement_seen as a (user_id, through) values (p_user, p_announcements_through)
    on conflict (user_id) do update set through = greatest(a.through, excluded.through);
  end if;

  v_ids := case
    when p_ids is not null then p_ids
    when p_state = 'archived' then
      array(select p.notification_id from belfry.stream_position p where p.user_id = p_user and p.seq <= p_through)
    else
      array(select n.id from belfry.notification n
             where n.user_id = p_user and n.state in ('unseen', 'seen') and not n.withdrawn and n.seq <= p_through)
  end;

  -- States only go forward: a mark that comes late never goes back.
  -- What waits for the end of its window nobody has seen. It comes up with it, also where the rest was archived; without it there is nothing to say.
  update belfry.notification n
     set state  = p_state,
         open   = n.open and p_state <> 'archived',
         reopen = n.reopen and n.due_at is not null,
         due_at = case when n.reopen or p_state <> 'archived' then n.due_at end
   where n.id = any (v_ids)
     and n.user_id = p_user
     and not n.withdrawn
     and case p_state
           when 'seen' then n.state = 'unseen'
           when 'read' then n.state in ('unseen', 'seen')
           else n.state <> 'archived'
         end;
  get diagnostics v_count = row_count;

  if v_count > 0 then
    v_seq := v_seq + 1;
    update belfry.head h set seq = v_seq where h.user_id = p_user;
    insert into belfry.state_change (user_id, seq, state, ids, through) values (p_user, v_seq, p_state, p_ids, p_through);
  end if;
  return query select v_seq, v_count > 0;
end
$$;

-- As 0020 has it, but for state and alert.
create or replace function belfry.store_batch(
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
  p_dead          belfry.dead[],
  p_ended         timestamptz default null  -- windows that ended up to then are done with
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

  if p_ended is not null then
    delete from belfry.window_end w where w.due_at <= p_ended;
  end if;

  -- What a person archived meanwhile takes no further event: the batch is decided anew.
  if p_changed is not null then
    -- Of those that begin to wait; who waits already has a row.
    insert into belfry.window_end (due_at, notification_id)
    select belfry.at_ms(c.due_ms), c.id from unnest(p_changed) c
     where c.due_ms is not null
       and exists (select from belfry.notification n where n.id = c.id and n.due_at is null);

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
             state       = case when c.back is not null and not c.withdrawn
                                     and ((n.reopen or c.reopen) and n.state in ('seen', 'read') or n.reopen and n.state = 'archived')
                                then 'unseen' else n.state end,
             alert       = case when c.back is null then n.alert
                                else c.alert or not c.withdrawn
                                     and ((n.reopen or c.reopen) and n.state = 'read' or n.reopen and n.state = 'archived') end,
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
