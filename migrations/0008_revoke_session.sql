-- 0008: ending one session of a person.
--
-- Locks: only a new function; nothing that exists is touched.

create function belfry.revoke_session(session text) returns bigint
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  event_id bigint;
begin
  if (length(revoke_session.session) between 1 and 64) is not true then
    raise invalid_parameter_value using message = 'belfry.revoke_session: session must be a text of 1 to 64 characters, as in the answer to auth';
  end if;
  insert into belfry.outbox (source, op, new)
  values ('belfry.revoke', 'revoke', jsonb_build_object('session', revoke_session.session))
  returning id into event_id;
  perform belfry.ring();
  return event_id;
end
$$;
comment on function belfry.revoke_session(text) is 'Closes one socket (4403, revoked) when this transaction commits; session is what the answer to auth names. Returns the outbox id.';

-- belfry migrate grants it to belfry_app, which may not exist yet.
revoke all on function belfry.revoke_session(text) from public;
