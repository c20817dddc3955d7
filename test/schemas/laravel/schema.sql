-- Laravel: plural snake case, bigint ids, nullable timestamps without a zone, morph maps, softDeletes, pivot tables in the singular.
create table migrations (id serial primary key, migration varchar(255) not null, batch integer not null);
create table failed_jobs (id bigserial primary key, uuid varchar(255) not null unique, connection text not null, queue text not null, payload text not null, exception text not null, failed_at timestamp(0) default current_timestamp not null);
create table jobs (id bigserial primary key, queue varchar(255) not null, payload text not null, attempts smallint not null, reserved_at integer, available_at integer not null, created_at integer not null);
create table users (
  id                bigserial primary key,
  name              varchar(255) not null,
  email             varchar(255) not null unique,
  email_verified_at timestamp(0),
  password          varchar(255) not null,
  remember_token    varchar(100),
  banned_at         timestamp(0),
  created_at        timestamp(0),
  updated_at        timestamp(0)
);
create table articles (
  id         bigserial primary key,
  user_id    bigint not null references users (id) on delete cascade,
  title      varchar(255) not null,
  body       text not null,
  created_at timestamp(0),
  updated_at timestamp(0),
  deleted_at timestamp(0)
);
create table videos (
  id         bigserial primary key,
  user_id    bigint not null references users (id) on delete cascade,
  url        varchar(255) not null,
  created_at timestamp(0),
  updated_at timestamp(0)
);
create table comments (
  id               bigserial primary key,
  user_id          bigint not null references users (id) on delete cascade,
  commentable_type varchar(255) not null,
  commentable_id   bigint not null,
  body             text not null,
  created_at       timestamp(0),
  updated_at       timestamp(0),
  deleted_at       timestamp(0)
);
create index comments_commentable_type_commentable_id_index on comments (commentable_type, commentable_id);
create table favorites (
  user_id         bigint not null references users (id) on delete cascade,
  favoriteable_type varchar(255) not null,
  favoriteable_id   bigint not null,
  created_at      timestamp(0),
  updated_at      timestamp(0),
  primary key (user_id, favoriteable_type, favoriteable_id)
);
-- $this->belongsToMany(User::class, 'follower_user', 'user_id', 'follower_id')
create table follower_user (
  id          bigserial primary key,
  user_id     bigint not null references users (id) on delete cascade,
  follower_id bigint not null references users (id) on delete cascade,
  created_at  timestamp(0),
  updated_at  timestamp(0)
);
create table friendships (
  id           bigserial primary key,
  requester_id bigint not null references users (id) on delete cascade,
  addressee_id bigint not null references users (id) on delete cascade,
  status       varchar(255) default 'pending' not null,
  created_at   timestamp(0),
  updated_at   timestamp(0),
  unique (requester_id, addressee_id)
);
create table messages (
  id          bigserial primary key,
  sender_id   bigint not null references users (id) on delete cascade,
  receiver_id bigint not null references users (id) on delete cascade,
  message     text not null,
  is_read     boolean default false not null,
  created_at  timestamp(0),
  updated_at  timestamp(0)
);
create table user_mutes (
  id            bigserial primary key,
  user_id       bigint not null references users (id) on delete cascade,
  muted_user_id bigint not null references users (id) on delete cascade,
  expires_at    timestamp(0),
  created_at    timestamp(0),
  updated_at    timestamp(0)
);
create table notifications (id uuid primary key, type varchar(255) not null, notifiable_type varchar(255) not null, notifiable_id bigint not null, data text not null, read_at timestamp(0), created_at timestamp(0), updated_at timestamp(0));
