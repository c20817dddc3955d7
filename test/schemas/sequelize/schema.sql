-- Sequelize with timestamps: false: model names in the plural as they are, camel case columns, enums named by the tool, paranoid off.
create table "SequelizeMeta" (name varchar(255) not null primary key);
create type "enum_Reactions_kind" as enum ('clap', 'heart');
create table "Users" (
  "id"        serial primary key,
  "username"  varchar(255) not null unique,
  "fullName"  varchar(255),
  "isBanned"  boolean default false
);
create table "Stories" (
  "id"        serial primary key,
  "headline"  varchar(255),
  "isPrivate" boolean default false,
  "UserId"    integer references "Users" ("id") on delete set null on update cascade
);
create table "Favorites" (
  "UserId"  integer not null references "Users" ("id") on delete cascade on update cascade,
  "StoryId" integer not null references "Stories" ("id") on delete cascade on update cascade,
  primary key ("UserId", "StoryId")
);
create table "Reactions" (
  "id"      serial primary key,
  "kind"    "enum_Reactions_kind",
  "UserId"  integer references "Users" ("id") on delete cascade on update cascade,
  "StoryId" integer references "Stories" ("id") on delete cascade on update cascade
);
create table "Replies" (
  "id"       serial primary key,
  "body"     text,
  "authorId" integer references "Users" ("id") on delete cascade on update cascade,
  "StoryId"  integer references "Stories" ("id") on delete cascade on update cascade
);
-- User.belongsToMany(User, { as: 'Followers', through: 'UserFollowers', foreignKey: 'followingId' })
create table "UserFollowers" (
  "followerId"  integer not null references "Users" ("id") on delete cascade on update cascade,
  "followingId" integer not null references "Users" ("id") on delete cascade on update cascade,
  primary key ("followerId", "followingId")
);
create table "Chats" (
  "id"      serial primary key,
  "user1Id" integer not null references "Users" ("id"),
  "user2Id" integer not null references "Users" ("id")
);
create table "ChatMessages" (
  "id"     serial primary key,
  "text"   text,
  "ChatId" integer references "Chats" ("id") on delete cascade on update cascade,
  "UserId" integer references "Users" ("id") on delete cascade on update cascade
);
create table "Mentions" (
  "id"              serial primary key,
  "StoryId"         integer references "Stories" ("id") on delete cascade on update cascade,
  "mentionedUserId" integer references "Users" ("id") on delete cascade on update cascade
);
-- Friends, and nothing says who asked.
create table "Friends" (
  "user1Id" integer not null references "Users" ("id"),
  "user2Id" integer not null references "Users" ("id"),
  primary key ("user1Id", "user2Id")
);
