-- 0003: inboxes, streams, counters.
--
-- Locks: only new objects; nothing that exists is touched.
-- Keys are compared by bytes (collate "C"): nobody reads their order, and it is several times faster.
-- Lock order of every writer: heads (person, then channel, each ordered by key) before anything else of a stream.

create table belfry.head (
  user_id text   collate "C" primary key,
  seq     bigint not null default 0
) with (fillfactor = 60);
comment on table  belfry.head         is 'One row per person with a stream; its lock serialises all who write that stream.';
comment on column belfry.head.user_id is 'The person, as text.';
comment on column belfry.head.seq     is 'Position of the last push; dense.';

create table belfry.notification (
  id           bigint      generated always as identity primary key,
  user_id      text        collate "C" not null,
  seq          bigint      not null,
  type         text        collate "C" not null,
  group_key    text        collate "C" not null,
  open         boolean     not null default true,
  object_kind  text,
  object_id    text,
  subject_kind text,
  subject_id   text,
  actors       text[]      not null default '{}',
  actor_count  integer     not null default 0,
  event_count  integer     not null default 0,
  state        text        not null default 'unseen' check (state in ('unseen', 'seen', 'read', 'archived')),
  alert        boolean     not null default true,
  withdrawn    boolean     not null default false,
  shown        boolean     not null default true,
  reopen       boolean     not null default false,
  message      text,
  data         jsonb,
  first_at     timestamptz not null,
  last_at      timestamptz not null,
  pushed_at    timestamptz not null default clock_timestamp(),
  due_at       timestamptz
) with (fillfactor = 70);
create unique index notification_open_group on belfry.notification (user_id, type, group_key) where open;
create index notification_due on belfry.notification (due_at) where due_at is not null;
create index notification_unread on belfry.notification (user_id) where state in ('unseen', 'seen') and not withdrawn;
comment on table  belfry.notification              is 'The inbox: one row per notification, which may stand for many events (a group).';
comment on column belfry.notification.id           is 'Stable while the notification lives, also through updates in place.';
comment on column belfry.notification.user_id      is 'The recipient.';
comment on column belfry.notification.seq          is 'Position of its last push in the recipient''s stream.';
comment on column belfry.notification.type         is 'like, comment, follow, ….';
comment on column belfry.notification.group_key    is 'What it groups by: the object for types that group, else the event''s own key.';
comment on column belfry.notification.open         is 'Whether a further event may join it.';
comment on column belfry.notification.object_kind  is 'Kind of the object, e.g. post; null where there is none.';
comment on column belfry.notification.object_id    is 'Id of the object.';
comment on column belfry.notification.subject_kind is 'Kind of the thing itself, e.g. comment.';
comment on column belfry.notification.subject_id   is 'Id of the thing itself (the newest one).';
comment on column belfry.notification.actors       is 'The newest distinct actors, newest first, at most the sample size.';
comment on column belfry.notification.actor_count  is 'Distinct actors.';
comment on column belfry.notification.event_count  is 'Events that stand behind it now.';
comment on column belfry.notification.state        is 'unseen, seen (list opened), read (clicked), archived.';
comment on column belfry.notification.alert        is 'Whether the last push should ring.';
comment on column belfry.notification.withdrawn    is 'Nothing stands behind it any more, or the recipient may no longer see it.';
comment on column belfry.notification.shown        is 'Whether the last push showed it: a client does not hold what was last withdrawn.';
comment on column belfry.notification.reopen       is 'Something new waits for its push, which then makes a seen or read one unseen.';
comment on column belfry.notification.message      is 'Text given by the caller of belfry.notify; null where a template makes it.';
comment on column belfry.notification.data         is 'Data given by the caller of belfry.notify.';
comment on column belfry.notification.first_at     is 'Time of its first event: the group closes groupFor after it.';
comment on column belfry.notification.last_at      is 'Time of its newest event.';
comment on column belfry.notification.pushed_at    is 'When it was last pushed: a window begins there.';
comment on column belfry.notification.due_at       is 'When a pending update in place must be pushed; null when nothing is pending.';

create table belfry.stream_position (
  user_id         text   collate "C" not null,
  seq             bigint not null,
  notification_id bigint not null,
  primary key (user_id, seq)
) with (fillfactor = 80);
comment on table  belfry.stream_position                 is 'Where notifications stand in their person''s stream: the same seq as notification.seq, beside it so that a push rewrites this narrow row and one index, and leaves the four of the notification alone (HOT).';
comment on column belfry.stream_position.user_id         is 'The recipient.';
comment on column belfry.stream_position.seq             is 'Position of the notification''s last push.';
comment on column belfry.stream_position.notification_id is 'The notification.';

create table belfry.notification_event (
  source          text        collate "C" not null,
  key             text        collate "C" not null,
  user_id         text        collate "C" not null,
  notification_id bigint      not null,
  event_id        bigint      not null,
  actor_id        text        collate "C",
  at              timestamptz not null,
  removed_at      timestamptz,
  primary key (source, key, user_id)
) with (fillfactor = 80);
create index notification_event_actor on belfry.notification_event (notification_id, actor_id);
comment on table  belfry.notification_event                 is 'Which events stand behind a notification: what an undo retracts, and what makes a second delivery of an event do nothing.';
comment on column belfry.notification_event.source          is 'Name of the source.';
comment on column belfry.notification_event.key             is 'Natural key of the row, as a JSON array of texts.';
comment on column belfry.notification_event.user_id         is 'The recipient.';
comment on column belfry.notification_event.notification_id is 'The notification it went into.';
comment on column belfry.notification_event.event_id        is 'The outbox id of the event that last changed this row.';
comment on column belfry.notification_event.actor_id        is 'Who did it.';
comment on column belfry.notification_event.at              is 'When the event happened.';
comment on column belfry.notification_event.removed_at      is 'When it was undone; the row stays, so that doing it again does not alert.';

create table belfry.state_change (
  user_id text        not null,
  seq     bigint      not null,
  state   text        not null check (state in ('seen', 'read', 'archived')),
  ids     bigint[],
  through bigint,
  at      timestamptz not null default clock_timestamp(),
  primary key (user_id, seq)
);
comment on table  belfry.state_change         is 'Log of seen, read and archived, so that a client that resumes hears of what was done on another one.';
comment on column belfry.state_change.user_id is 'Whose inbox.';
comment on column belfry.state_change.seq     is 'Position in the person''s stream.';
comment on column belfry.state_change.state   is 'The state that was set.';
comment on column belfry.state_change.ids     is 'Of these notifications, or null when through is given.';
comment on column belfry.state_change.through is 'Of all notifications up to this seq.';
comment on column belfry.state_change.at      is 'When.';

create table belfry.preference (
  user_id text not null,
  type    text not null,
  setting text not null check (setting in ('on', 'off', 'following')),
  primary key (user_id, type)
);
comment on table  belfry.preference         is 'What a person wants to hear of; no row means on.';
comment on column belfry.preference.user_id is 'The person.';
comment on column belfry.preference.type    is 'The notification type.';
comment on column belfry.preference.setting is 'on, off, or following: only from people whom this person follows.';

create table belfry.verdict (
  id        bigint      generated always as identity primary key,
  at        timestamptz not null default clock_timestamp(),
  rule      text        not null,
  event_ids bigint[]    not null,
  user_ids  text[]      not null
);
comment on table  belfry.verdict           is 'Why recipients did not get events, one row per batch and rule.';
comment on column belfry.verdict.id        is 'Order.';
comment on column belfry.verdict.at        is 'When the batch was processed.';
comment on column belfry.verdict.rule      is 'The rule that decided (CONTRACT: rule).';
comment on column belfry.verdict.event_ids is 'Outbox ids; the n-th belongs to the n-th of user_ids.';
comment on column belfry.verdict.user_ids  is 'Recipients.';

create table belfry.held (
  source   text        collate "C" not null,
  key      text        collate "C" not null,
  event_id bigint      not null,
  until    timestamptz not null,
  primary key (source, key)
);
comment on table  belfry.held          is 'Created rows whose recipient could not be told yet (owner still null); an update may resolve them.';
comment on column belfry.held.source   is 'Name of the source.';
comment on column belfry.held.key      is 'Natural key of the row.';
comment on column belfry.held.event_id is 'The outbox id of the creation.';
comment on column belfry.held.until    is 'After this an update no longer notifies.';

create table belfry.counter (
  source    text   collate "C" not null,
  object_id text   collate "C" not null,
  count     bigint not null,
  primary key (source, object_id)
) with (fillfactor = 60);
comment on table  belfry.counter           is 'Rows per object (likes of a post), kept by deltas, exact.';
comment on column belfry.counter.source    is 'The source that is counted.';
comment on column belfry.counter.object_id is 'The object.';
comment on column belfry.counter.count     is 'Rows for which the source''s when holds.';

create table belfry.channel_head (
  channel  text   collate "C" primary key,
  "offset" bigint not null default 0
) with (fillfactor = 60);
comment on table  belfry.channel_head          is 'One row per channel with a stream; its lock serialises all who write that stream.';
comment on column belfry.channel_head.channel  is 'kind:id.';
comment on column belfry.channel_head."offset" is 'Position of the last logged event; dense.';

create table belfry.channel_event (
  channel            text        collate "C" not null,
  "offset"           bigint      not null,
  at                 timestamptz not null default clock_timestamp(),
  event              text        not null,
  actor_id           text,
  data               jsonb       not null,
  data_without_actor jsonb,
  primary key (channel, "offset")
);
create index channel_event_at on belfry.channel_event (at);
comment on table  belfry.channel_event                    is 'Log of channel events (new comments, messages, broadcasts), kept for retention.channels.';
comment on column belfry.channel_event.channel            is 'kind:id.';
comment on column belfry.channel_event."offset"           is 'Dense position in the channel.';
comment on column belfry.channel_event.at                 is 'When it was logged.';
comment on column belfry.channel_event.event              is 'Name of the push.';
comment on column belfry.channel_event.actor_id           is 'Who did it, for blocks.';
comment on column belfry.channel_event.data               is 'What subscribers get.';
comment on column belfry.channel_event.data_without_actor is 'What subscribers get who are blocked by the actor or block them; null: nothing.';

create table belfry.announcement (
  id      bigint      generated always as identity primary key,
  at      timestamptz not null,
  event_id bigint     not null unique,
  message text        not null,
  data    jsonb       not null default '{}'
);
comment on table  belfry.announcement          is 'Announcements: one row each, merged into every inbox at read.';
comment on column belfry.announcement.id       is 'Order; clients see a<id>.';
comment on column belfry.announcement.at       is 'When it was announced.';
comment on column belfry.announcement.event_id is 'The outbox id: makes a second processing do nothing.';
comment on column belfry.announcement.message  is 'The text.';
comment on column belfry.announcement.data     is 'Data given by the caller.';

create table belfry.announcement_seen (
  user_id text   primary key,
  through bigint not null
);
comment on table  belfry.announcement_seen         is 'High-water mark of seen announcements per person.';
comment on column belfry.announcement_seen.user_id is 'The person.';
comment on column belfry.announcement_seen.through is 'Announcements up to this id have been seen.';
