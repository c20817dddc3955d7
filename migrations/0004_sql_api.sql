-- 0004: the SQL API for backends, and what is known of the triggers.
--
-- Locks: only new objects; of what exists, the rights on belfry.ring() change.

-- Arguments are checked here (22023), so that a mistake fails the caller's statement and not, later and unseen, the relay.

create function belfry.notify(
  user_id    text,
  type       text,
  message    text,
  data       jsonb default '{}',
  actor_id   text  default null,
  dedupe_key text  default null
) returns bigint
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  event_id bigint;
begin
  if (length(notify.user_id) between 1 and 256) is not true then
    raise invalid_parameter_value using message = 'belfry.notify: user_id must be a text of 1 to 256 characters';
  end if;
  if (notify.type ~ '^[A-Za-z][A-Za-z0-9_-]{0,47}$') is not true then
    raise invalid_parameter_value using message = 'belfry.notify: type must be a letter, then at most 47 letters, digits, _ or -';
  end if;
  if (length(notify.message) between 1 and 4000) is not true then
    raise invalid_parameter_value using message = 'belfry.notify: message must be a text of 1 to 4000 characters';
  end if;
  if (notify.data is null or jsonb_typeof(notify.data) = 'object') is not true then
    raise invalid_parameter_value using message = 'belfry.notify: data must be a JSON object';
  end if;
  if (coalesce(octet_length(notify.data::text), 0) <= 65536) is not true then
    raise invalid_parameter_value using message = 'belfry.notify: data must be at most 65536 bytes';
  end if;
  if (notify.actor_id is null or length(notify.actor_id) between 1 and 256) is not true then
    raise invalid_parameter_value using message = 'belfry.notify: actor_id must be null or a text of 1 to 256 characters';
  end if;
  if (notify.dedupe_key is null or length(notify.dedupe_key) between 1 and 256) is not true then
    raise invalid_parameter_value using message = 'belfry.notify: dedupe_key must be null or a text of 1 to 256 characters';
  end if;
  insert into belfry.outbox (source, op, new)
  values ('belfry.notify', 'notify', jsonb_build_object(
    'user_id',    notify.user_id,
    'type',       notify.type,
    'message',    notify.message,
    'data',       coalesce(notify.data, '{}'),
    'actor_id',   notify.actor_id,
    'dedupe_key', notify.dedupe_key))
  returning id into event_id;
  perform belfry.ring();
  return event_id;
end
$$;
comment on function belfry.notify(text, text, text, jsonb, text, text) is 'Notifies one person when this transaction commits; returns the outbox id. The same dedupe_key for the same user and type within the retention of the outbox notifies once.';

create function belfry.broadcast(channel text, event text, data jsonb) returns bigint
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  event_id bigint;
begin
  if (length(broadcast.channel) between 1 and 256 and broadcast.channel !~ '[\x01-\x1f\x7f]'
    and broadcast.channel !~ '^:' and broadcast.channel !~ '^[^:]*:$') is not true then
    raise invalid_parameter_value using message = 'belfry.broadcast: channel must be kind:id, the name of a room, or all; at most 256 characters';
  end if;
  if (length(broadcast.event) between 1 and 64) is not true then
    raise invalid_parameter_value using message = 'belfry.broadcast: event must be a text of 1 to 64 characters';
  end if;
  if (jsonb_typeof(broadcast.data) = 'object') is not true then
    raise invalid_parameter_value using message = 'belfry.broadcast: data must be a JSON object';
  end if;
  if (octet_length(broadcast.data::text) <= 65536) is not true then
    raise invalid_parameter_value using message = 'belfry.broadcast: data must be at most 65536 bytes';
  end if;
  insert into belfry.outbox (source, op, new)
  values ('belfry.broadcast', 'broadcast', jsonb_build_object(
    'channel', broadcast.channel,
    'event',   broadcast.event,
    'data',    broadcast.data))
  returning id into event_id;
  perform belfry.ring();
  return event_id;
end
$$;
comment on function belfry.broadcast(text, text, jsonb) is 'Sends an event to the subscribers of a channel when this transaction commits; returns the outbox id.';

create function belfry.announce(message text, data jsonb default '{}') returns bigint
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  event_id bigint;
begin
  if (length(announce.message) between 1 and 4000) is not true then
    raise invalid_parameter_value using message = 'belfry.announce: message must be a text of 1 to 4000 characters';
  end if;
  if (announce.data is null or jsonb_typeof(announce.data) = 'object') is not true then
    raise invalid_parameter_value using message = 'belfry.announce: data must be a JSON object';
  end if;
  if (coalesce(octet_length(announce.data::text), 0) <= 65536) is not true then
    raise invalid_parameter_value using message = 'belfry.announce: data must be at most 65536 bytes';
  end if;
  insert into belfry.outbox (source, op, new)
  values ('belfry.announce', 'announce', jsonb_build_object(
    'message', announce.message,
    'data',    coalesce(announce.data, '{}')))
  returning id into event_id;
  perform belfry.ring();
  return event_id;
end
$$;
comment on function belfry.announce(text, jsonb) is 'Tells everyone (type system) when this transaction commits; returns the outbox id.';

create function belfry.revoke(user_id text) returns bigint
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
  perform belfry.ring();
  return event_id;
end
$$;
comment on function belfry.revoke(text) is 'Closes all sockets of a person (4403, revoked) when this transaction commits; returns the outbox id.';

-- belfry migrate grants them to belfry_app, which may not exist yet.
revoke all on function belfry.notify(text, text, text, jsonb, text, text)       from public;
revoke all on function belfry.broadcast(text, text, jsonb)                      from public;
revoke all on function belfry.announce(text, jsonb)                             from public;
revoke all on function belfry.revoke(text)                                      from public;
revoke all on function belfry.ring()                                            from public;

create table belfry.capture_trigger (
  table_schema text        not null,
  table_name   text        not null,
  trigger_name text        not null,
  source       text        not null,
  operation    text        not null check (operation in ('insert', 'update', 'delete', 'truncate')),
  capture      text        not null check (capture in ('statement', 'row')),
  columns      jsonb       not null,
  installed_at timestamptz not null default clock_timestamp(),
  primary key (table_schema, table_name, trigger_name)
);
comment on table  belfry.capture_trigger              is 'The triggers that belfry migrate made: what should be there, whatever is.';
comment on column belfry.capture_trigger.table_schema is 'Schema of the table, or of its partition.';
comment on column belfry.capture_trigger.table_name   is 'The table, or its partition.';
comment on column belfry.capture_trigger.trigger_name is 'Its trigger.';
comment on column belfry.capture_trigger.source       is 'Name of the source in the config.';
comment on column belfry.capture_trigger.operation    is 'insert, update, delete or truncate.';
comment on column belfry.capture_trigger.capture      is 'statement, or row for subscribers of logical replication.';
comment on column belfry.capture_trigger.columns      is 'Columns that the trigger reads, with the types they had when it was installed.';
comment on column belfry.capture_trigger.installed_at is 'When.';

create view belfry.trigger_health as
  select e.source,
         format('%I.%I', e.table_schema, e.table_name) as table_name,
         e.operation,
         e.trigger_name,
         case
           when t.oid is null then 'missing'
           when t.tgenabled not in ('O', 'A') or (e.capture = 'row' and t.tgenabled <> 'A') then 'disabled'
           when d.gone is not null then 'column gone'
           when d.retyped is not null then 'column retyped'
           else 'ok'
         end as state,
         case
           when c.oid is null then 'the table is gone'
           when t.oid is null then 'the trigger is gone: run belfry migrate'
           when t.tgenabled not in ('O', 'A') or (e.capture = 'row' and t.tgenabled <> 'A') then 'the trigger is switched off: run belfry migrate'
           when d.gone is not null then 'captured as null: ' || d.gone
           when d.retyped is not null then 'works on; run belfry migrate to accept: ' || d.retyped
         end as detail,
         e.installed_at
    from belfry.capture_trigger e
    left join pg_catalog.pg_namespace n on n.nspname = e.table_schema
    left join pg_catalog.pg_class     c on c.relnamespace = n.oid and c.relname = e.table_name
    left join pg_catalog.pg_trigger   t on t.tgrelid = c.oid and t.tgname = e.trigger_name
    left join lateral (
      select string_agg(k.key, ', ' order by k.key) filter (where a.attname is null) as gone,
             string_agg(k.key || ' was ' || k.value, ', ' order by k.key) filter (where a.type <> k.value) as retyped
        from jsonb_each_text(e.columns) as k
        left join (
          select b.attname,
                 case when coalesce(i.typnamespace, y.typnamespace) = 'pg_catalog'::regnamespace then format_type(b.atttypid, b.atttypmod)
                      when i.oid is not null then format('%I.%I[]', i.typnamespace::regnamespace::name, i.typname)
                      else format('%I.%I', y.typnamespace::regnamespace::name, y.typname) end as type
            from pg_catalog.pg_attribute b
            join pg_catalog.pg_type      y on y.oid = b.atttypid
            left join pg_catalog.pg_type i on i.oid = y.typelem and y.typcategory = 'A'
           where b.attrelid = c.oid and b.attnum > 0 and not b.attisdropped
        ) as a on a.attname = k.key
    ) as d on c.oid is not null;
comment on view belfry.trigger_health is 'Every trigger of Belfry: ok, missing, disabled, column gone (captured as null) or column retyped. belfry status says more: it compares with the config.';
