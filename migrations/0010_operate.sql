-- 0010: what operators do: replays, dead letters, retention.
--
-- Locks: new objects; indexes on belfry.verdict and belfry.state_change, which hold up the relay and who marks (no backend) while
-- they are built; storage settings (SHARE UPDATE EXCLUSIVE).

create table belfry.replay_job (
  id           bigint      generated always as identity primary key,
  mode         text        not null check (mode in ('deliver', 'rebuild', 'retry')),
  filter       jsonb       not null default '{}',
  dry_run      boolean     not null default false,
  rate         integer     check (rate > 0),
  mapping      text,
  requested_by text        not null default session_user,
  requested_at timestamptz not null default clock_timestamp(),
  state        text        not null default 'waiting' check (state in ('waiting', 'running', 'stopped', 'done', 'failed')),
  stop         boolean     not null default false,
  worker       text,
  started_at   timestamptz,
  finished_at  timestamptz,
  seen         pg_snapshot,
  target       pg_snapshot,
  target_id    bigint,
  after_id     bigint      not null default 0,
  total        bigint,
  processed    bigint      not null default 0,
  delivered    bigint      not null default 0,
  suppressed   bigint      not null default 0,
  already      bigint      not null default 0,
  withdrawn    bigint      not null default 0,
  failed       bigint      not null default 0,
  error        text
);
create index replay_job_open on belfry.replay_job (id) where state in ('waiting', 'running');
comment on table  belfry.replay_job              is 'Every replay and every retry of dead letters: what is to be done, how far it is, and afterwards who had what done, when.';
comment on column belfry.replay_job.id           is 'Order; the leader works on one at a time.';
comment on column belfry.replay_job.mode         is 'deliver: what was missed; rebuild: also takes back what should not be there; retry: dead letters.';
comment on column belfry.replay_job.filter       is 'Which events: source, type, user, object, since, until, limit; for retry also ids.';
comment on column belfry.replay_job.dry_run      is 'Only counts; nothing else is written than this row.';
comment on column belfry.replay_job.rate         is 'At most so many events a second; null: as fast as live traffic lets it.';
comment on column belfry.replay_job.mapping      is 'Fingerprint of the config that it was asked for with; a leader with another one refuses. Null: whatever the leader has.';
comment on column belfry.replay_job.requested_by is 'The database role that asked.';
comment on column belfry.replay_job.requested_at is 'When.';
comment on column belfry.replay_job.state        is 'waiting, running, stopped (may be resumed), done or failed.';
comment on column belfry.replay_job.stop         is 'Somebody asked to stop it; it does after the batch it is at.';
comment on column belfry.replay_job.worker       is 'host:pid:random of the process that worked on it last.';
comment on column belfry.replay_job.started_at   is 'When it was first worked on.';
comment on column belfry.replay_job.finished_at  is 'When it ended, or was stopped.';
comment on column belfry.replay_job.seen         is 'With target and target_id: how far the relay had read when it began. What is unread is not replayed.';
comment on column belfry.replay_job.target       is 'As in belfry.relay.';
comment on column belfry.replay_job.target_id    is 'after_id of belfry.relay.';
comment on column belfry.replay_job.after_id     is 'Events up to this outbox id are done.';
comment on column belfry.replay_job.total        is 'Events that it was about when it began; an estimate where the filter needs more than the row.';
comment on column belfry.replay_job.processed    is 'Events.';
comment on column belfry.replay_job.delivered    is 'Notifications that went out: one per event and recipient.';
comment on column belfry.replay_job.suppressed   is 'Likewise, kept back by a rule.';
comment on column belfry.replay_job.already      is 'Likewise, that the recipient had already.';
comment on column belfry.replay_job.withdrawn    is 'Likewise, taken back.';
comment on column belfry.replay_job.failed       is 'Events that could not be processed; error has the last reason.';
comment on column belfry.replay_job.error        is 'Why it failed, or the last event did.';

create view belfry.replays as
  select id, mode, state, dry_run, filter, requested_by, requested_at, started_at, finished_at, worker,
         processed, total, delivered, suppressed, already, withdrawn, failed,
         case when state = 'done' then 100.0 when total > 0 then least(100.0, round(100.0 * processed / total, 1)) end as percent,
         case when state = 'running' and processed > 0
              then round((extract(epoch from clock_timestamp() - started_at) * greatest(total - processed, 0) / processed)::numeric, 1)
         end as seconds_left,
         error
    from belfry.replay_job;
comment on view belfry.replays is 'Replays and retries: running ones with how far they are, and what the others came to.';

create function belfry.replay(
  mode       text        default 'deliver',
  source     text        default null,
  type       text        default null,
  user_id    text        default null,
  object     text        default null,
  since      timestamptz default null,
  until      timestamptz default null,
  max_events integer     default null,
  rate       integer     default null,
  dry_run    boolean     default false
) returns bigint
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  job_id bigint;
begin
  if (replay.mode in ('deliver', 'rebuild')) is not true then
    raise invalid_parameter_value using message = 'belfry.replay: mode must be deliver or rebuild';
  end if;
  if replay.rate < 1 or replay.max_events < 1 then
    raise invalid_parameter_value using message = 'belfry.replay: rate and max_events must be 1 or more';
  end if;
  if replay.since >= replay.until then
    raise invalid_parameter_value using message = 'belfry.replay: since must be before until';
  end if;
  insert into belfry.replay_job (mode, filter, dry_run, rate)
  values (replay.mode,
          jsonb_strip_nulls(jsonb_build_object('source', replay.source, 'type', replay.type, 'user', replay.user_id, 'object', replay.object,
                                               'since', replay.since, 'until', replay.until, 'limit', replay.max_events)),
          coalesce(replay.dry_run, false), replay.rate)
  returning id into job_id;
  perform belfry.ring();
  return job_id;
end
$$;
comment on function belfry.replay is 'Has the leading relay process events of the outbox again; returns the id, to be looked up in belfry.replays. The filters are those of belfry replay.';

create function belfry.stop_replay(id bigint) returns boolean
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update belfry.replay_job j set stop = true, state = case when j.state = 'waiting' then 'stopped' else j.state end
   where j.id = stop_replay.id and j.state in ('waiting', 'running');
  return found;
end
$$;
comment on function belfry.stop_replay is 'Stops a replay after the batch it is at; false when it is over already.';

create function belfry.resume_replay(id bigint) returns boolean
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  resumed boolean;
begin
  update belfry.replay_job j set stop = false, state = 'waiting', finished_at = null, error = null
   where j.id = resume_replay.id and j.state in ('stopped', 'failed');
  resumed := found;
  perform belfry.ring();
  return resumed;
end
$$;
comment on function belfry.resume_replay is 'Lets a replay that was stopped, or that failed, go on where it was; false when there is none.';

revoke all on function belfry.replay(text, text, text, text, text, timestamptz, timestamptz, integer, integer, boolean) from public;
revoke all on function belfry.stop_replay(bigint)   from public;
revoke all on function belfry.resume_replay(bigint) from public;

create table belfry.discarded_event (
  event_id     bigint      not null,
  source       text        not null,
  op           text        not null,
  event_at     timestamptz not null,
  attempts     integer     not null,
  sqlstate     text,
  error        text        not null,
  discarded_at timestamptz not null default clock_timestamp(),
  discarded_by text        not null default session_user,
  reason       text
);
comment on table  belfry.discarded_event              is 'Dead letters that somebody threw away, without what was in them.';
comment on column belfry.discarded_event.event_id     is 'The outbox id.';
comment on column belfry.discarded_event.source       is 'As in the outbox.';
comment on column belfry.discarded_event.op           is 'As in the outbox.';
comment on column belfry.discarded_event.event_at     is 'The outbox row''s time.';
comment on column belfry.discarded_event.attempts     is 'How often it was tried.';
comment on column belfry.discarded_event.sqlstate     is 'Of the last failure.';
comment on column belfry.discarded_event.error        is 'Of the last failure.';
comment on column belfry.discarded_event.discarded_at is 'When.';
comment on column belfry.discarded_event.discarded_by is 'The database role.';
comment on column belfry.discarded_event.reason       is 'What was given as the reason.';

-- Retention. Inboxes are pruned in order of id, which needs no index of its own.
create table belfry.pruned (
  user_id text   collate "C" primary key,
  seq     bigint not null
);
comment on table  belfry.pruned         is 'How far a person''s stream was pruned: a client that was last here before that must fetch.';
comment on column belfry.pruned.user_id is 'The person.';
comment on column belfry.pruned.seq     is 'Highest seq of what was deleted.';

create index verdict_at on belfry.verdict (at);
create index state_change_at on belfry.state_change (at);

-- Hot tables are vacuumed before a fifth of them is dead (the default), and without a pause between pages.
alter table belfry.relay              set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
alter table belfry.head               set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table belfry.channel_head       set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table belfry.counter            set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
alter table belfry.notification       set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
alter table belfry.notification_event set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
alter table belfry.channel_event      set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Days of the outbox (outbox/partitions.ts), for a relay that does not own it. The caller sets lock_timeout in its transaction.

create function belfry.make_partition(day date) returns text
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text        := 'outbox_' || to_char(day, 'YYYYMMDD');
  v_from timestamptz := day::timestamp at time zone 'UTC';
  v_to   timestamptz := (day + 1)::timestamp at time zone 'UTC';
begin
  -- One maker at a time; the doorbell's key plus 2.
  perform pg_advisory_xact_lock(108187749872251);
  if to_regclass('belfry.' || v_name) is not null then
    return 'there';
  end if;
  execute format('create table belfry.%I (like belfry.outbox including all excluding identity)', v_name);
  execute format('comment on table belfry.%I is %L', v_name, 'Events of ' || to_char(day, 'YYYY-MM-DD') || ' (UTC).');
  if exists (select from belfry.outbox_default d where d.at >= v_from and d.at < v_to) then
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
  return 'made';
end
$$;
comment on function belfry.make_partition is 'Makes the partition of a day (UTC): made, there (it was already), or left (too many rows of it in the default partition).';

create function belfry.drop_partition(name text, kept interval) returns text
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_wanted boolean;
  v_old    boolean;
begin
  if (drop_partition.name ~ '^outbox_[0-9]{8}$') is not true then
    raise invalid_parameter_value using message = 'belfry.drop_partition: name must be that of a day, such as outbox_20260115';
  end if;
  -- Without the lock first: a partition that may not be dropped yet costs nobody a wait.
  for i in 1 .. 2 loop
    execute format('select exists (select from belfry.%1$I where xid >= pg_snapshot_xmax(%2$L::pg_snapshot) or xid = any (array(select pg_snapshot_xip(%2$L::pg_snapshot))))
                        or exists (select from belfry.replay_job j where j.mode <> ''retry'' and j.state in (''waiting'', ''running'')
                                      and j.after_id < (select max(id) from belfry.%1$I))',
                   drop_partition.name, (select r.seen from belfry.relay r))
      into v_wanted;
    if v_wanted then
      return 'unread';
    end if;
    if i = 1 then
      execute format('select coalesce(max(at), ''-infinity'') < clock_timestamp() - $1 from belfry.%I', drop_partition.name) into v_old using kept;
      if not v_old then
        return 'young';
      end if;
      execute format('lock table belfry.outbox, belfry.%I in access exclusive mode', drop_partition.name);
    end if;
  end loop;
  execute format('drop table belfry.%I', drop_partition.name);
  return 'dropped';
end
$$;
comment on function belfry.drop_partition is 'Drops the partition of a day: dropped, young (it holds rows that are to be kept), or unread (by the relay, or by a replay under way).';

revoke all on function belfry.make_partition(date)            from public;
revoke all on function belfry.drop_partition(text, interval)  from public;
