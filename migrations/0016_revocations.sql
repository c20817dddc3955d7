-- 0016: what was revoked is kept for a day, so that a gateway that no message told of it carries it out all the same.
--
-- Locks: only new objects; nothing that exists is touched.

create table belfry.revocation (
  id      bigint      generated always as identity primary key,
  at      timestamptz not null default clock_timestamp(),
  user_id text,
  session text,
  check (num_nonnulls(user_id, session) = 1)
);
create index revocation_at on belfry.revocation (at);
comment on table  belfry.revocation         is 'Calls of belfry.revoke and belfry.revoke_session, written with the batch that they came in. Kept for a day.';
comment on column belfry.revocation.id      is 'Order: gateways ask for what is above the last one that they know.';
comment on column belfry.revocation.at      is 'When it was stored, a moment before gateways are told.';
comment on column belfry.revocation.user_id is 'The person all of whose sessions end that began before.';
comment on column belfry.revocation.session is 'Or the one session that ends.';

-- Those who run as these roles must not stand still until somebody runs belfry roles again.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'belfry_relay') then
    grant select, insert, update, delete on belfry.revocation to belfry_relay;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'belfry_reader') then
    grant select (id, at) on belfry.revocation to belfry_reader;
  end if;
end
$$;
