-- 0002: the relay's own state: leader, cursor, epoch, dead letters.
--
-- Locks: only new objects; nothing that exists is touched.

create table belfry.relay (
  name              text        primary key default 'main' check (name = 'main'),
  term              bigint      not null default 0,
  leader            text,
  lease_until       timestamptz not null default '-infinity',
  backends          jsonb       not null default '[]',
  paused            boolean     not null default false,
  epoch             text        not null default replace(gen_random_uuid()::text, '-', ''),
  seen              pg_snapshot not null default pg_current_snapshot(),
  target            pg_snapshot,
  after_id          bigint      not null default 0,
  max_id            bigint      not null default 0,
  read_at           timestamptz not null default clock_timestamp(),
  system_identifier text,
  timeline          text
) with (fillfactor = 50);
comment on table  belfry.relay                   is 'One row: lease, cursor and term in one, so that they move together.';
comment on column belfry.relay.name              is 'Always main.';
comment on column belfry.relay.term              is 'Raised by every takeover; each write of a leader is fenced by it.';
comment on column belfry.relay.leader            is 'host:pid:random of the process that leads, for people; null when it resigned.';
comment on column belfry.relay.lease_until       is 'Database time until which the leader may lead without renewing.';
comment on column belfry.relay.backends          is '[{"pid","start"}] of the leader''s sessions; a takeover terminates them.';
comment on column belfry.relay.paused            is 'belfry pause: the relay stops reading; writers are untouched.';
comment on column belfry.relay.epoch             is 'Identity of all streams; a change makes every client fetch anew.';
comment on column belfry.relay.seen              is 'Everything visible in this snapshot has been read.';
comment on column belfry.relay.target            is 'While a delta is read page by page: the snapshot it ends at; null between deltas.';
comment on column belfry.relay.after_id          is 'Within a delta: rows up to this id have been read.';
comment on column belfry.relay.max_id            is 'Highest outbox id ever read; used only after a restore into a younger cluster.';
comment on column belfry.relay.read_at           is 'When the cursor last moved.';
comment on column belfry.relay.system_identifier is 'pg_control_system(): another one means that the database was restored elsewhere.';
comment on column belfry.relay.timeline          is 'First eight digits of the WAL file name: another one means a promotion.';

insert into belfry.relay default values;

create table belfry.source_state (
  source  text        primary key,
  seed    pg_snapshot not null,
  at      timestamptz not null default clock_timestamp()
);
comment on table  belfry.source_state        is 'Counters of a source were counted from its table once; what that count has seen is not counted again.';
comment on column belfry.source_state.source is 'Name of the source.';
comment on column belfry.source_state.seed   is 'The snapshot of the count: events visible in it are skipped by counters.';
comment on column belfry.source_state.at     is 'When it was counted.';

create table belfry.dead_event (
  event_id   bigint      primary key,
  source     text        not null,
  op         text        not null,
  new        jsonb,
  old        jsonb,
  event_at   timestamptz not null,
  failed_at  timestamptz not null default clock_timestamp(),
  attempts   integer     not null default 1,
  sqlstate   text,
  error      text        not null
);
comment on table  belfry.dead_event           is 'Events that could not be processed and were set aside, so that the rest could go on.';
comment on column belfry.dead_event.event_id  is 'The outbox id.';
comment on column belfry.dead_event.source    is 'As in the outbox.';
comment on column belfry.dead_event.op        is 'As in the outbox.';
comment on column belfry.dead_event.new       is 'As in the outbox; a copy, since the outbox may be pruned.';
comment on column belfry.dead_event.old       is 'As in the outbox.';
comment on column belfry.dead_event.event_at  is 'The outbox row''s time.';
comment on column belfry.dead_event.failed_at is 'When it was last tried.';
comment on column belfry.dead_event.attempts  is 'How often it was tried.';
comment on column belfry.dead_event.sqlstate  is 'SQLSTATE of the last failure, where Postgres raised it.';
comment on column belfry.dead_event.error     is 'Message of the last failure.';

create view belfry.dead_letter as
  select event_id as id, source, op, event_at as at, failed_at, attempts, sqlstate, error, new, old
  from belfry.dead_event;
comment on view belfry.dead_letter is 'Dead letters: events that could not be processed.';
