-- Phoenix with Ecto: plural tables, inserted_at without a zone, one table of relations with a kind, mentions in an array.
create table schema_migrations (version bigint primary key, inserted_at timestamp(0));
create table users (
  id              bigserial primary key,
  handle          varchar(255) not null unique,
  display_name    varchar(255),
  hashed_password varchar(255) not null,
  confirmed_at    timestamp(0),
  suspended_at    timestamp(0),
  inserted_at     timestamp(0) not null default now(),
  updated_at      timestamp(0) not null default now()
);
create table users_tokens (id bigserial primary key, user_id bigint not null references users on delete cascade, token bytea not null, context varchar(255) not null, inserted_at timestamp(0) not null default now());
create table posts (
  id                 bigserial primary key,
  user_id            bigint not null references users,
  body               text not null,
  mentioned_user_ids bigint[] not null default '{}',
  inserted_at        timestamp(0) not null default now(),
  updated_at         timestamp(0) not null default now()
);
create table likes (
  id          bigserial primary key,
  user_id     bigint not null references users on delete cascade,
  post_id     bigint not null references posts on delete cascade,
  inserted_at timestamp(0) not null default now(),
  updated_at  timestamp(0) not null default now()
);
create unique index likes_user_id_post_id_index on likes (user_id, post_id);
create table replies (
  id          bigserial primary key,
  user_id     bigint not null references users,
  post_id     bigint not null references posts on delete cascade,
  body        text not null,
  inserted_at timestamp(0) not null default now()
);
create table user_relations (
  source_id   bigint not null references users,
  target_id   bigint not null references users,
  kind        varchar(20) not null check (kind in ('follow', 'block', 'mute')),
  inserted_at timestamp(0) not null default now(),
  primary key (source_id, target_id, kind)
);
