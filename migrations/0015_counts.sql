-- 0015: the gateway may call belfry.notify as a member of belfry_relay.
--
-- Locks: none on tables.

-- Only where belfry roles was run: it grants the same.
do $$
begin
  if exists (select from pg_catalog.pg_roles r
              where r.rolname = 'belfry_relay' and has_schema_privilege(r.oid, 'belfry', 'usage')) then
    grant execute on function belfry.notify(text, text, text, jsonb, text, text) to belfry_relay;
  end if;
end
$$;
