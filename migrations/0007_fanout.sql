-- 0007: wide events (what goes to more people than fit into a batch, or is taken back from them), and subjects.
--
-- Locks: belfry.notification against writes while its index is made; otherwise only new objects.

create table belfry.fanout_job (
  id         bigint      generated always as identity primary key,
  kind       text        not null check (kind in ('deliver', 'retract')),
  source     text        collate "C" not null,
  key        text        collate "C" not null,
  event_id   bigint      not null,
  step       jsonb       not null default '{}',
  row        jsonb       not null default '{}',
  after      text        collate "C" not null default '',
  handled    bigint      not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  done_at    timestamptz,
  error      text
) with (fillfactor = 70);
create index fanout_job_key  on belfry.fanout_job (source, key);
create index fanout_job_open on belfry.fanout_job (handled, id) where done_at is null;
comment on table  belfry.fanout_job            is 'Events for more than 1,000 people: opened in the transaction that processes the event, worked off between batches, each step in one transaction with the notifications it makes.';
comment on column belfry.fanout_job.id         is 'Order; jobs of one row of a source run one after another.';
comment on column belfry.fanout_job.kind       is 'deliver, or retract what was delivered.';
comment on column belfry.fanout_job.source     is 'Name of the source.';
comment on column belfry.fanout_job.key        is 'Natural key of the row.';
comment on column belfry.fanout_job.event_id   is 'The outbox id.';
comment on column belfry.fanout_job.step       is 'What is delivered: actor, object, type and so on.';
comment on column belfry.fanout_job.row        is 'The mapped columns of the row: what the recipients are asked with.';
comment on column belfry.fanout_job.after      is 'Recipients up to this id (in byte order) have been handled.';
comment on column belfry.fanout_job.handled    is 'How many that were.';
comment on column belfry.fanout_job.created_at is 'When the event was processed.';
comment on column belfry.fanout_job.done_at    is 'When the last recipient was handled, or it was given up; null while it is at work. Kept as long as notifications are, so that a removal knows that it is wide.';
comment on column belfry.fanout_job.error      is 'Why it was given up.';

-- A comment that answers somebody and mentions them is told once: found by the comment.
create index notification_subject on belfry.notification (subject_kind, subject_id, user_id) where subject_id is not null;
create index fanout_job_done on belfry.fanout_job (done_at) where done_at is not null;
