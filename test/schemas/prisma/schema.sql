-- Prisma: tables and columns as the models are written, cuid ids as text, enums, implicit many-to-many with "A" and "B".
create table "_prisma_migrations" (id varchar(36) primary key, checksum varchar(64) not null, migration_name varchar(255) not null);
create type "FollowStatus" as enum ('PENDING', 'ACCEPTED', 'REJECTED');
create type "ReactionType" as enum ('LIKE', 'LOVE', 'DISLIKE');
create table "User" (
  "id"        text not null,
  "email"     text not null,
  "name"      text,
  "createdAt" timestamp(3) not null default current_timestamp,
  constraint "User_pkey" primary key ("id")
);
create unique index "User_email_key" on "User" ("email");
create table "Post" (
  "id"        text not null,
  "title"     text not null,
  "content"   text,
  "published" boolean not null default false,
  "authorId"  text not null,
  "createdAt" timestamp(3) not null default current_timestamp,
  "updatedAt" timestamp(3) not null,
  constraint "Post_pkey" primary key ("id"),
  constraint "Post_authorId_fkey" foreign key ("authorId") references "User" ("id") on delete restrict on update cascade
);
-- likedBy User[] @relation("PostLikes")
create table "_PostLikes" (
  "A" text not null,
  "B" text not null,
  constraint "_PostLikes_AB_pkey" primary key ("A", "B"),
  constraint "_PostLikes_A_fkey" foreign key ("A") references "Post" ("id") on delete cascade on update cascade,
  constraint "_PostLikes_B_fkey" foreign key ("B") references "User" ("id") on delete cascade on update cascade
);
create index "_PostLikes_B_index" on "_PostLikes" ("B");
-- followedBy User[] @relation("UserFollows"), following User[] @relation("UserFollows")
create table "_UserFollows" (
  "A" text not null,
  "B" text not null,
  constraint "_UserFollows_AB_pkey" primary key ("A", "B"),
  constraint "_UserFollows_A_fkey" foreign key ("A") references "User" ("id") on delete cascade on update cascade,
  constraint "_UserFollows_B_fkey" foreign key ("B") references "User" ("id") on delete cascade on update cascade
);
-- A relation without a name.
create table "_PostToUser" (
  "A" text not null references "Post" ("id") on delete cascade on update cascade,
  "B" text not null references "User" ("id") on delete cascade on update cascade
);
create unique index "_PostToUser_AB_unique" on "_PostToUser" ("A", "B");
create table "Comment" (
  "id"        text not null,
  "text"      text not null,
  "authorId"  text not null,
  "postId"    text not null,
  "parentId"  text,
  "deletedAt" timestamp(3),
  "createdAt" timestamp(3) not null default current_timestamp,
  constraint "Comment_pkey" primary key ("id"),
  constraint "Comment_authorId_fkey" foreign key ("authorId") references "User" ("id"),
  constraint "Comment_postId_fkey" foreign key ("postId") references "Post" ("id"),
  constraint "Comment_parentId_fkey" foreign key ("parentId") references "Comment" ("id")
);
create table "Reaction" (
  "userId"    text not null,
  "commentId" text not null,
  "type"      "ReactionType" not null,
  constraint "Reaction_pkey" primary key ("userId", "commentId"),
  constraint "Reaction_userId_fkey" foreign key ("userId") references "User" ("id"),
  constraint "Reaction_commentId_fkey" foreign key ("commentId") references "Comment" ("id")
);
create table "Follow" (
  "followerId"  text not null,
  "followingId" text not null,
  "status"      "FollowStatus" not null default 'PENDING',
  constraint "Follow_pkey" primary key ("followerId", "followingId"),
  constraint "Follow_followerId_fkey" foreign key ("followerId") references "User" ("id"),
  constraint "Follow_followingId_fkey" foreign key ("followingId") references "User" ("id")
);
