-- 0013: every column has a comment, those of views and of the outbox's default partition too.
--
-- Locks: SHARE UPDATE EXCLUSIVE on belfry.outbox_default and the views, for a moment; no writer waits for that.

-- Also for belfry migrate when it has made belfry.outbox and belfry.lag anew (0011); what is missing is passed over.
create function belfry.describe_columns() returns void
  language plpgsql
as $$
declare
  v_column record;
begin
  for v_column in
    -- What a column shows unchanged is described where it is stored.
    select shown.attrelid::regclass as relation, shown.attname as name, col_description(stored.attrelid, stored.attnum) as comment
      from (values ('belfry.outbox_default', 'belfry.outbox'), ('belfry.replays', 'belfry.replay_job'),
                   ('belfry.dead_letter', 'belfry.dead_event')) p(shown, stored)
      join pg_catalog.pg_attribute shown  on shown.attrelid  = to_regclass(p.shown)
      join pg_catalog.pg_attribute stored on stored.attrelid = to_regclass(p.stored) and stored.attname = shown.attname
     where shown.attnum > 0 and stored.attnum > 0 and not shown.attisdropped
    union all
    select to_regclass(c.relation), c.name, c.comment
      from (values ('belfry.replays',        'percent',      'How far it is; an estimate where total is one.'),
                   ('belfry.replays',        'seconds_left', 'At the pace so far; null unless it runs.'),
                   ('belfry.dead_letter',    'id',           'The outbox id.'),
                   ('belfry.dead_letter',    'at',           'The outbox row''s time.'),
                   ('belfry.dead_letter',    'waits_for',    'Earlier dead letters of the same key that are still there, and must go first.'),
                   ('belfry.lag',            'events',       'Events that the relay has not read yet.'),
                   ('belfry.lag',            'seconds',      'Age of the oldest of them; 0 where there is none.'),
                   ('belfry.trigger_health', 'source',       'Name of the source in the config.'),
                   ('belfry.trigger_health', 'table_name',   'The table, quoted as in SQL.'),
                   ('belfry.trigger_health', 'operation',    'insert, update, delete or truncate.'),
                   ('belfry.trigger_health', 'trigger_name', 'Name of the trigger on that table.'),
                   ('belfry.trigger_health', 'state',        'ok, missing, disabled, column gone or column retyped.'),
                   ('belfry.trigger_health', 'detail',       'What is wrong and what helps; null where nothing is.'),
                   ('belfry.trigger_health', 'installed_at', 'When the trigger was made or last changed.')
           ) c(relation, name, comment)
     where to_regclass(c.relation) is not null
  loop
    execute format('comment on column %s.%I is %L', v_column.relation, v_column.name, v_column.comment);
  end loop;
end
$$;
comment on function belfry.describe_columns() is 'Gives columns of views and of the default partition their comments. Called by belfry migrate.';
revoke all on function belfry.describe_columns() from public;

select belfry.describe_columns();
