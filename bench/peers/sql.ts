/**
 * What people write by hand in place of Belfry's capture: the triggers that Belfry is compared with.
 */

/** A plain outbox: Belfry's columns and indexes, one row-level trigger that stores the row's columns as jsonb. No bell, no guard. */
export const PLAIN_OUTBOX: readonly string[] = [
  `create schema plain`,
  `create table plain.outbox (
     id     bigint      not null generated always as identity (cache 1),
     xid    xid8        not null default pg_current_xact_id(),
     at     timestamptz not null default clock_timestamp(),
     source text        not null,
     op     text        not null,
     new    jsonb,
     old    jsonb,
     primary key (id, at)
   )`,
  `create index outbox_xid_id on plain.outbox (xid, id)`,
  `create function plain.capture() returns trigger language plpgsql as $$
   begin
     insert into plain.outbox (source, op, new)
     values ('post_like', 'created', jsonb_build_object('user_id', new.user_id, 'post_id', new.post_id));
     return null;
   end $$`,
  `create trigger capture after insert on likes for each row execute function plain.capture()`,
];

/**
 * The plain outbox with what keeps it from ever failing, delaying or endangering a write, written by hand and no more: days as partitions,
 * a statement trigger that is guarded, waits 200 ms at most, runs with its owner's rights and nobody's search_path, and tries the bell.
 * It is the control for what the protections cost, and for what Belfry's own trigger adds to them.
 */
export const PROTECTED_OUTBOX: readonly string[] = [
  `create schema plain`,
  (PLAIN_OUTBOX[1] ?? '') + ' partition by range (at)',
  `do $$ begin
     for day in -1 .. 7 loop
       execute format('create table plain.outbox_%s partition of plain.outbox for values from (%L) to (%L)',
         day + 1, current_date + day, current_date + day + 1);
     end loop;
   end $$`,
  `create table plain.outbox_default partition of plain.outbox default`,
  `create index outbox_xid_id on plain.outbox (xid, id)`,
  `create function plain.capture() returns trigger
     language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
   begin
     begin
       insert into plain.outbox (source, op, new)
       select 'post_like', 'created', jsonb_build_object('user_id', user_id, 'post_id', post_id) from new_rows;
       if not pg_try_advisory_xact_lock_shared(1) then
         perform pg_notify('plain', '');
       end if;
     exception when others then null;
     end;
     return null;
   end $$`,
  `create trigger capture after insert on likes referencing new table as new_rows for each statement execute function plain.capture()`,
];

/** NOTIFY with the whole push as payload: the trigger looks up the author, the pipe only forwards. */
export const NOTIFY_PAYLOAD: readonly string[] = [
  `create function notify_like() returns trigger language plpgsql as $$
   declare author bigint;
   begin
     select user_id into author from posts where id = new.post_id;
     perform pg_notify('likes', json_build_object('to', author::text, 'type', 'like', 'user_id', new.user_id::text,
       'post_id', new.post_id::text, 'message', 'Someone liked your post', 'timestamp', now())::text);
     return null;
   end $$`,
  `create trigger notify_like after insert on likes for each row execute function notify_like()`,
];

/**
 * The guarded trigger as it is usually written: an exception block round every insert, so a subtransaction per statement.
 * It is the control of the bench of long transactions: that bench must be able to see what it costs.
 */
export const GUARDED_EVERY_TIME: readonly string[] = [
  ...PLAIN_OUTBOX.slice(0, -2),
  `create function plain.capture() returns trigger language plpgsql as $$
   begin
     begin
       insert into plain.outbox (source, op, new)
       values ('post_like', 'created', jsonb_build_object('user_id', new.user_id, 'post_id', new.post_id));
     exception when others then null;
     end;
     return null;
   end $$`,
  `create trigger capture after insert on likes for each row execute function plain.capture()`,
];

/** The table that @socket.io/postgres-adapter asks for. */
export const SOCKET_IO_TABLE = `create table if not exists socket_io_attachments (
  id bigserial unique, created_at timestamptz default now(), payload bytea)`;
