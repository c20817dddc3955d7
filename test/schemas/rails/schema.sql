-- Rails: plural snake case, bigint ids, timestamps everywhere, polymorphic likes, integer-free status as text, soft delete by discard.
create table schema_migrations (version varchar not null primary key);
create table ar_internal_metadata (key varchar not null primary key, value varchar, created_at timestamp(6) not null, updated_at timestamp(6) not null);

create table users (
  id                     bigserial primary key,
  email                  varchar default '' not null,
  encrypted_password     varchar default '' not null,
  username               varchar not null,
  display_name           varchar,
  notifications_enabled  boolean default true not null,
  locale                 varchar default 'en' not null,
  discarded_at           timestamp(6),
  created_at             timestamp(6) not null,
  updated_at             timestamp(6) not null
);
create unique index index_users_on_email on users (email);
create unique index index_users_on_username on users (username);

create table posts (
  id           bigserial primary key,
  user_id      bigint not null,
  title        varchar,
  body         text,
  likes_count  integer default 0 not null,
  published_at timestamp(6),
  discarded_at timestamp(6),
  created_at   timestamp(6) not null,
  updated_at   timestamp(6) not null,
  constraint fk_rails_5b5ddfd518 foreign key (user_id) references users (id)
);

create table comments (
  id           bigserial primary key,
  post_id      bigint not null,
  user_id      bigint not null,
  parent_id    bigint,
  body         text not null,
  discarded_at timestamp(6),
  created_at   timestamp(6) not null,
  updated_at   timestamp(6) not null,
  constraint fk_rails_03de2dc08c foreign key (user_id) references users (id),
  constraint fk_rails_2fd19c0db7 foreign key (post_id) references posts (id),
  constraint fk_rails_31554e7034 foreign key (parent_id) references comments (id)
);

-- belongs_to :likeable, polymorphic: true
create table likes (
  id            bigserial primary key,
  user_id       bigint not null,
  likeable_type varchar not null,
  likeable_id   bigint not null,
  created_at    timestamp(6) not null,
  updated_at    timestamp(6) not null,
  constraint fk_rails_1e09b5dabf foreign key (user_id) references users (id)
);
create unique index index_likes_on_user_and_likeable on likes (user_id, likeable_type, likeable_id);

-- The tutorial's: has_many :active_relationships, class_name: "Relationship", foreign_key: "follower_id"
create table relationships (
  id          bigserial primary key,
  follower_id bigint,
  followed_id bigint,
  created_at  timestamp(6) not null,
  updated_at  timestamp(6) not null
);
create unique index index_relationships_on_follower_id_and_followed_id on relationships (follower_id, followed_id);

create table blocks (
  id         bigserial primary key,
  blocker_id bigint not null references users (id),
  blocked_id bigint not null references users (id),
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
create unique index index_blocks_on_both on blocks (blocker_id, blocked_id);

create table conversations (
  id         bigserial primary key,
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
create table conversation_participants (
  id              bigserial primary key,
  conversation_id bigint not null references conversations (id),
  user_id         bigint not null references users (id),
  created_at      timestamp(6) not null,
  updated_at      timestamp(6) not null
);
create table messages (
  id              bigserial primary key,
  conversation_id bigint not null references conversations (id),
  user_id         bigint not null references users (id),
  body            text,
  created_at      timestamp(6) not null,
  updated_at      timestamp(6) not null
);

-- Not social at all.
create table subscriptions (
  id         bigserial primary key,
  user_id    bigint not null references users (id),
  plan       varchar not null,
  stripe_id  varchar,
  created_at timestamp(6) not null,
  updated_at timestamp(6) not null
);
create table active_storage_attachments (
  id          bigserial primary key,
  name        varchar not null,
  record_type varchar not null,
  record_id   bigint not null,
  blob_id     bigint not null,
  created_at  timestamp(6) not null
);
