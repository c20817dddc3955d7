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
