-- TypeORM, in the manner of Misskey: singular tables, camel case columns, short text ids, enums named by the tool, constraints with hashes.
create table migrations (id serial primary key, timestamp bigint not null, name varchar not null);
create type note_visibility_enum as enum ('public', 'home', 'followers', 'specified');
create table "user" (
  "id"            varchar(32) not null,
  "createdAt"     timestamptz not null,
  "username"      varchar(128) not null,
  "name"          varchar(128),
  "isSuspended"   boolean not null default false,
  "isDeleted"     boolean not null default false,
  "notesCount"    integer not null default 0,
  constraint "PK_cace4a159ff9f2512dd42373760" primary key ("id")
);
create table user_profile (
  "userId"      varchar(32) not null,
  "description" varchar(2048),
  "email"       varchar(128),
  constraint "PK_51cb79b5555effaf7d69ba1cff9" primary key ("userId"),
  constraint "FK_51cb79b5555effaf7d69ba1cff9" foreign key ("userId") references "user" ("id") on delete cascade
);
create table note (
  "id"         varchar(32) not null,
  "replyId"    varchar(32),
  "renoteId"   varchar(32),
  "text"       text,
  "userId"     varchar(32) not null,
  "visibility" note_visibility_enum not null,
  constraint "PK_96d0c172a4fba276b1bbed43058" primary key ("id"),
  constraint "FK_5b87d9d19127bd5d92026017a7b" foreign key ("userId") references "user" ("id") on delete cascade,
  constraint "FK_17cb3553c700a4985dff5a30ff5" foreign key ("replyId") references note ("id") on delete cascade,
  constraint "FK_52ccc804d7c69037d558bac4c96" foreign key ("renoteId") references note ("id") on delete cascade
);
create table note_reaction (
  "id"       varchar(32) not null,
  "userId"   varchar(32) not null references "user" ("id") on delete cascade,
  "noteId"   varchar(32) not null references note ("id") on delete cascade,
  "reaction" varchar(260) not null,
  constraint "PK_767ec729b108799b587a3fcc9cf" primary key ("id")
);
create unique index "IDX_ad0c221b25672daf2df320a817" on note_reaction ("userId", "noteId");
create table following (
  "id"         varchar(32) primary key,
  "followeeId" varchar(32) not null references "user" ("id") on delete cascade,
  "followerId" varchar(32) not null references "user" ("id") on delete cascade
);
create unique index "IDX_307be5f1d1252e0388662acb96" on following ("followerId", "followeeId");
create table follow_request (
  "id"         varchar(32) primary key,
  "followeeId" varchar(32) not null references "user" ("id") on delete cascade,
  "followerId" varchar(32) not null references "user" ("id") on delete cascade
);
create table blocking (
  "id"        varchar(32) primary key,
  "blockeeId" varchar(32) not null references "user" ("id") on delete cascade,
  "blockerId" varchar(32) not null references "user" ("id") on delete cascade
);
create table muting (
  "id"        varchar(32) primary key,
  "muteeId"   varchar(32) not null references "user" ("id") on delete cascade,
  "muterId"   varchar(32) not null references "user" ("id") on delete cascade,
  "expiresAt" timestamptz
);
-- followeeId is a channel, and has no foreign key.
create table channel_following (
  "id"         varchar(32) primary key,
  "followeeId" varchar(32) not null,
  "followerId" varchar(32) not null references "user" ("id") on delete cascade
);
create table poll_vote (
  "id"     varchar(32) primary key,
  "userId" varchar(32) not null references "user" ("id") on delete cascade,
  "noteId" varchar(32) not null references note ("id") on delete cascade,
  "choice" integer not null
);
