-- Laravel with morphs for everything: likeables, followables, commentable comments, class names as types.
create table migrations (id serial primary key, migration varchar(255) not null, batch integer not null);
create table users (
  id         bigserial primary key,
  name       varchar(255) not null,
  email      varchar(255) not null unique,
  password   varchar(255) not null,
  banned_at  timestamp(0),
  created_at timestamp(0),
  updated_at timestamp(0)
);
create table posts (id bigserial primary key, user_id bigint not null references users on delete cascade, title varchar(255) not null, created_at timestamp(0), updated_at timestamp(0), deleted_at timestamp(0));
create table photos (id bigserial primary key, user_id bigint not null references users on delete cascade, path varchar(255) not null, created_at timestamp(0), updated_at timestamp(0));
create table comments (
  id               bigserial primary key,
  commentable_type varchar(255) not null,
  commentable_id   bigint not null,
  parent_id        bigint references comments on delete cascade,
  user_id          bigint not null references users on delete cascade,
  body             text not null,
  created_at       timestamp(0),
  updated_at       timestamp(0)
);
create index comments_commentable_type_commentable_id_index on comments (commentable_type, commentable_id);
create table likeables (
  user_id       bigint not null references users on delete cascade,
  likeable_type varchar(255) not null,
  likeable_id   bigint not null,
  created_at    timestamp(0),
  updated_at    timestamp(0),
  primary key (user_id, likeable_id, likeable_type)
);
create table followables (
  id              bigserial primary key,
  user_id         bigint not null references users on delete cascade,
  followable_type varchar(255) not null,
  followable_id   bigint not null,
  accepted_at     timestamp(0),
  created_at      timestamp(0),
  updated_at      timestamp(0)
);
create table user_mentions (id bigserial primary key, post_id bigint not null references posts on delete cascade, mentioned_user_id bigint not null references users, created_at timestamp(0));
