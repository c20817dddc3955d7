-- In the manner of Mastodon: accounts that users log in to, statuses that answer and reblog each other, integers for enums.
create table schema_migrations (version varchar not null primary key);
create table ar_internal_metadata (key varchar not null primary key, value varchar, created_at timestamp(6) not null, updated_at timestamp(6) not null);
create table accounts (
  id           bigint primary key,
  username     varchar default '' not null,
  domain       varchar,
  display_name varchar default '' not null,
  locked       boolean default false not null,
  suspended_at timestamp,
  created_at   timestamp(6) not null,
  updated_at   timestamp(6) not null
);
create table users (
  id                 bigserial primary key,
  email              varchar default '' not null unique,
  encrypted_password varchar default '' not null,
  account_id         bigint not null references accounts (id) on delete cascade,
  locale             varchar,
  created_at         timestamp(6) not null,
  updated_at         timestamp(6) not null
);
create table statuses (
  id                     bigint primary key,
  uri                    varchar,
  text                   text default '' not null,
  created_at             timestamp(6) not null,
  updated_at             timestamp(6) not null,
  in_reply_to_id         bigint references statuses (id) on delete set null,
  reblog_of_id           bigint references statuses (id) on delete cascade,
  visibility             integer default 0 not null,
  account_id             bigint not null references accounts (id) on delete cascade,
  in_reply_to_account_id bigint references accounts (id) on delete set null,
  deleted_at             timestamp
);
create table favourites (
  id         bigserial primary key,
  account_id bigint not null references accounts (id) on delete cascade,
  status_id  bigint not null references statuses (id) on delete cascade,
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
create unique index index_favourites_on_account_id_and_status_id on favourites (account_id, status_id);
create table bookmarks (
  id         bigserial primary key,
  account_id bigint not null references accounts (id) on delete cascade,
  status_id  bigint not null references statuses (id) on delete cascade,
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
create table follows (
  id                bigserial primary key,
  account_id        bigint not null references accounts (id) on delete cascade,
  target_account_id bigint not null references accounts (id) on delete cascade,
  show_reblogs      boolean default true not null,
  created_at        timestamp(6) not null,
  updated_at        timestamp(6) not null
);
create unique index index_follows_on_account_id_and_target_account_id on follows (account_id, target_account_id);
create table follow_requests (
  id                bigserial primary key,
  account_id        bigint not null references accounts (id) on delete cascade,
  target_account_id bigint not null references accounts (id) on delete cascade,
  created_at        timestamp(6) not null,
  updated_at        timestamp(6) not null
);
create table blocks (
  id                bigserial primary key,
  account_id        bigint not null references accounts (id) on delete cascade,
  target_account_id bigint not null references accounts (id) on delete cascade,
  created_at        timestamp(6) not null,
  updated_at        timestamp(6) not null
);
create table mutes (
  id                 bigserial primary key,
  account_id         bigint not null references accounts (id) on delete cascade,
  target_account_id  bigint not null references accounts (id) on delete cascade,
  hide_notifications boolean default true not null,
  expires_at         timestamp,
  created_at         timestamp(6) not null,
  updated_at         timestamp(6) not null
);
create table conversations (id bigserial primary key, uri varchar unique, created_at timestamp(6) not null, updated_at timestamp(6) not null);
create table mentions (
  id         bigserial primary key,
  status_id  bigint not null references statuses (id) on delete cascade,
  account_id bigint not null references accounts (id) on delete cascade,
  silent     boolean default false not null,
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
-- What the numbers mean stands in a comment here, and nowhere in the next table.
create table collaborations (id bigserial primary key, account_id bigint not null references accounts (id), status_id bigint not null references statuses (id));
create table friendships (
  id         bigserial primary key,
  from_account_id bigint not null references accounts (id) on delete cascade,
  to_account_id   bigint not null references accounts (id) on delete cascade,
  state      integer default 0 not null,
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
comment on column friendships.state is 'enum: 0 = requested, 1 = accepted, 2 = refused';
create table contact_requests (
  id         bigserial primary key,
  sender_id  bigint not null references accounts (id) on delete cascade,
  receiver_id bigint not null references accounts (id) on delete cascade,
  status     integer default 0 not null
);
