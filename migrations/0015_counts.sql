-- 0015: a count of a source knows what it was made by; the gateway may call belfry.notify as a member of belfry_relay.
--
-- Locks: ACCESS EXCLUSIVE on belfry.source_state for an instant; a page that the relay reads waits for that, no writer does.

alter table belfry.source_state
  add column mapping text,
  add column due     boolean not null default false;
comment on table  belfry.source_state         is 'Sources with a counter: counted from their table once, and anew when something else is to be counted or writes were not captured for a while. What the count has seen is not counted again.';
comment on column belfry.source_state.mapping is 'What is counted, by the config that was migrated last: table, column of the object, when. Null: counted before this was kept; the next belfry migrate takes the count as it is.';
comment on column belfry.source_state.due     is 'The count by this mapping is still to be made: by belfry migrate, or by the relay that leads, if its config says the same.';

-- Of sources whose triggers were removed: what was written since is not in their counts.
delete from belfry.source_state s
 where not exists (select from belfry.capture_trigger t where t.source = s.source);

-- Only where belfry roles was run: it grants the same.
do $$
begin
  if exists (select from pg_catalog.pg_roles r
              where r.rolname = 'belfry_relay' and has_schema_privilege(r.oid, 'belfry', 'usage')) then
    grant execute on function belfry.notify(text, text, text, jsonb, text, text) to belfry_relay;
  end if;
end
$$;
