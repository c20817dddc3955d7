-- 0022: what a replay that was taken up again still needs is reckoned from then on, and one that nobody is at is stopped at once.
--
-- Since it was first worked on much may lie in between: a night in which it was stopped, an hour without a relay. And a worker that was
-- killed leaves its replay running: until another relay led, it could be neither stopped nor resumed.
--
-- Locks: belfry.replay_job ACCESS EXCLUSIVE for an instant (two columns without a default); no writer uses it. A view and a function are
-- replaced. A relay of an older version goes on; what it takes up is reckoned from its beginning, as before.

alter table belfry.replay_job add column resumed_at timestamptz, add column resumed_with bigint;
comment on column belfry.replay_job.resumed_at   is 'When a worker last took it up.';
comment on column belfry.replay_job.resumed_with is 'How many events had been processed by then.';

create or replace view belfry.replays as
  select id, mode, state, dry_run, filter, requested_by, requested_at, started_at, finished_at, worker,
         processed, total, delivered, suppressed, already, withdrawn, failed,
         case when state = 'done' then 100.0 when total > 0 then least(100.0, round(100.0 * processed / total, 1)) end as percent,
         case when state = 'running' and processed > coalesce(resumed_with, 0)
              then round((extract(epoch from clock_timestamp() - coalesce(resumed_at, started_at)) * greatest(total - processed, 0)
                          / (processed - coalesce(resumed_with, 0)))::numeric, 1)
         end as seconds_left,
         error
    from belfry.replay_job;

create or replace function belfry.stop_replay(id bigint) returns boolean
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update belfry.replay_job j
     set stop = true, state = s.state, finished_at = case s.state when 'stopped' then clock_timestamp() end
    from (select case when o.state = 'running' and r.lease_until > clock_timestamp() then o.state else 'stopped' end as state
            from belfry.replay_job o, belfry.relay r where o.id = stop_replay.id and r.name = 'main') s
   where j.id = stop_replay.id and j.state in ('waiting', 'running');
  return found;
end
$$;
comment on function belfry.stop_replay is 'Stops a replay after the batch it is at, or at once where no relay leads; false when it is over already.';
