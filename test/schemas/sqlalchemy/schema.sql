-- SQLAlchemy: singular tables, a schema of its own, association tables made by Table() without any key, "user" and "like" as names.
create schema app;
create table app.alembic_version (version_num varchar(32) not null primary key);
create table app."user" (
  id       serial primary key,
  username varchar(64) not null unique,
  email    varchar(120) not null unique
);
create table app.post (
  id        serial primary key,
  body      varchar(140) not null,
  timestamp timestamp without time zone,
  user_id   integer references app."user" (id)
);
-- followers = sa.Table('followers', metadata, Column('follower_id', ...), Column('followed_id', ...))
create table app.followers (
  follower_id integer references app."user" (id),
  followed_id integer references app."user" (id)
);
create table app."like" (
  user_id integer references app."user" (id),
  post_id integer references app.post (id)
);
create table app.comment (
  id        serial primary key,
  body      text,
  author_id integer references app."user" (id),
  post_id   integer references app.post (id)
);
create table app.comment_like (
  user_id    integer references app."user" (id),
  comment_id integer references app.comment (id)
);
create table app.message (
  id           serial primary key,
  body         varchar(140),
  timestamp    timestamp without time zone,
  sender_id    integer references app."user" (id),
  recipient_id integer references app."user" (id)
);
create table app.company (
  id       serial primary key,
  name     varchar(80) not null,
  owner_id integer not null references app."user" (id)
);
create table app.job (
  id         serial primary key,
  title      varchar(80) not null,
  company_id integer not null references app.company (id)
);
create table app.job_application (
  id           serial primary key,
  job_id       integer not null references app.job (id),
  applicant_id integer not null references app."user" (id),
  status       varchar(20) not null default 'submitted'
);
-- Not a like of anything that is anybody's.
create table app.poll_vote (
  user_id   integer references app."user" (id),
  option_id integer not null
);
