-- 0014: the epoch has a table of its own, for those who read it often.
--
-- belfry.relay changes with every batch. While a transaction of anybody on the server is open, what its changes leave behind stays, page by
-- page, and whoever reads the row reads all of that. Gateways need the epoch for every session and every channel, so they read it here.
-- The column in belfry.relay stays what the leader writes, and what gateways of the version before read.
--
-- Locks: new objects; belfry.relay SHARE ROW EXCLUSIVE for an instant (a trigger): a batch waits for that, no writer does.

create table belfry.epoch (
  name  text primary key default 'main' check (name = 'main'),
  value text not null
);
comment on table  belfry.epoch       is 'One row: belfry.relay.epoch, apart from what changes with every batch.';
comment on column belfry.epoch.name  is 'Always main.';
comment on column belfry.epoch.value is 'Identity of all streams; a change makes every client fetch anew.';

create function belfry.follow_epoch() returns trigger
  language plpgsql
as $$
begin
  update belfry.epoch e set value = new.epoch where e.name = new.name;
  return null;
end
$$;
comment on function belfry.follow_epoch is 'Keeps belfry.epoch equal to belfry.relay.epoch.';

create trigger follow_epoch after update on belfry.relay
  for each row when (old.epoch is distinct from new.epoch) execute function belfry.follow_epoch();

insert into belfry.epoch (name, value) select r.name, r.epoch from belfry.relay r;

-- Those who run as these roles must not stand still until somebody runs belfry roles again.
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'belfry_relay') then
    grant select, insert, update, delete on belfry.epoch to belfry_relay;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'belfry_reader') then
    grant select on belfry.epoch to belfry_reader;
  end if;
end
$$;
