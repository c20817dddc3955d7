-- 0006: what people do to their inbox, and the relay's view of itself.
--
-- Locks: only new objects; nothing that exists is touched.

create function belfry.mark(p_user text, p_state text, p_ids bigint[], p_through bigint, p_announcements_through bigint)
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
  update belfry.notification n
     set state = p_state, reopen = false, open = n.open and p_state <> 'archived'
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
comment on function belfry.mark is 'Sets the state of a person''s notifications, by ids or up to a seq, and logs it in the person''s stream.';

create view belfry.lag as
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
