-- NestJS with TypeORM and classes that are called …Entity: snake-case tables, camel-case columns, foreign keys with their hashes.
create table "migrations" (id serial primary key, "timestamp" bigint not null, name varchar not null);
create table "user_entity" (
  "id"           uuid primary key default gen_random_uuid(),
  "username"     varchar not null unique,
  "passwordHash" varchar not null,
  "isBanned"     boolean not null default false,
  "createdAt"    timestamptz not null default now()
);
create table "post_entity" (
  "id"           uuid primary key default gen_random_uuid(),
  "title"        varchar not null,
  "userEntityId" uuid not null constraint "FK_3f9a1c7b2d" references "user_entity" ("id"),
  "createdAt"    timestamptz not null default now()
);
create table "post_like_entity" (
  "id"           uuid primary key default gen_random_uuid(),
  "userEntityId" uuid not null constraint "FK_a1" references "user_entity" ("id") on delete cascade,
  "postEntityId" uuid not null constraint "FK_a2" references "post_entity" ("id") on delete cascade,
  "createdAt"    timestamptz not null default now(),
  constraint "UQ_a3" unique ("userEntityId", "postEntityId")
);
create table "comment_entity" (
  "id"           uuid primary key default gen_random_uuid(),
  "text"         text not null,
  "postEntityId" uuid not null constraint "FK_b1" references "post_entity" ("id") on delete cascade,
  "userEntityId" uuid not null constraint "FK_b2" references "user_entity" ("id"),
  "createdAt"    timestamptz not null default now(),
  "deletedAt"    timestamptz
);
create table "comment_mention_entity" (
  "commentEntityId" uuid not null constraint "FK_c1" references "comment_entity" ("id") on delete cascade,
  "mentionedUserId" uuid not null constraint "FK_c2" references "user_entity" ("id"),
  "createdAt"       timestamptz not null default now(),
  primary key ("commentEntityId", "mentionedUserId")
);
create table "user_entity_following_user_entity" (
  "userEntityId_1" uuid not null constraint "FK_d1" references "user_entity" ("id") on delete cascade,
  "userEntityId_2" uuid not null constraint "FK_d2" references "user_entity" ("id") on delete cascade,
  primary key ("userEntityId_1", "userEntityId_2")
);
create table "block_entity" (
  "id"        uuid primary key default gen_random_uuid(),
  "blockerId" uuid not null constraint "FK_e1" references "user_entity" ("id"),
  "blockedId" uuid not null constraint "FK_e2" references "user_entity" ("id"),
  "isActive"  boolean not null default true
);
