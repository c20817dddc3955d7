-- 0019: a revocation holds for the sessions that began before it was committed, however late the relay reads it.
--
-- When a transaction commits nobody writes down, and between a call of belfry.revoke and that commit somebody may still come in by what
-- is revoked. So a call leaves a row here, whose time is set by a trigger that waits for the commit; the relay takes it away with the
-- event, into belfry.revocation.
--
-- Locks: belfry.revocation ACCESS EXCLUSIVE for an instant (a column); only relays and gateways use it, no writer waits. A function is
-- replaced; the rest is new.

alter table belfry.revocation add column revoked_at timestamptz;
comment on column belfry.revocation.revoked_at is 'When the call was committed; null for a session, and from a relay of an older version: then `at` counts.';

create table belfry.revoke_call (
  event_id bigint      primary key,
  at       timestamptz not null default clock_timestamp()
);
create index revoke_call_at on belfry.revoke_call (at);
comment on table  belfry.revoke_call          is 'Calls of belfry.revoke that the relay has not read yet.';
comment on column belfry.revoke_call.event_id is 'The event, belfry.outbox.id.';
comment on column belfry.revoke_call.at       is 'When its transaction committed, to the moment.';

create function belfry.stamp_revoke_call() returns trigger
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  update belfry.revoke_call c set at = clock_timestamp() where c.event_id = new.event_id;
  return null;
end
$$;
comment on function belfry.stamp_revoke_call() is 'Sets the time of a call of belfry.revoke when its transaction commits.';
revoke all on function belfry.stamp_revoke_call() from public;

create constraint trigger stamp_revoke_call after insert on belfry.revoke_call
  deferrable initially deferred
  for each row execute function belfry.stamp_revoke_call();

-- As 0004 has it, but for the row that keeps the time.
create or replace function belfry.revoke(user_id text) returns bigint
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  event_id bigint;
begin
  if (length(revoke.user_id) between 1 and 256) is not true then
    raise invalid_parameter_value using message = 'belfry.revoke: user_id must be a text of 1 to 256 characters';
  end if;
  insert into belfry.outbox (source, op, new)
  values ('belfry.revoke', 'revoke', jsonb_build_object('user_id', revoke.user_id))
  returning id into event_id;
  insert into belfry.revoke_call values (event_id);
  perform belfry.ring();
  return event_id;
end
$$;

-- Those who run as this role must not stand still until somebody runs belfry roles again.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'belfry_relay') then
    grant select, insert, update, delete on belfry.revoke_call to belfry_relay;
  end if;
end
$$;
