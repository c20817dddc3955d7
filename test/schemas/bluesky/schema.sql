-- In the manner of Bluesky's app view: everything has a text URI, people have a DID, nothing has a foreign key, camel case.
create schema bsky;
create table bsky.actor (
  "did"       varchar primary key,
  "handle"    varchar unique,
  "indexedAt" varchar not null,
  "takedownRef" varchar
);
create table bsky.profile (
  "uri"         varchar primary key,
  "cid"         varchar not null,
  "creator"     varchar not null,
  "displayName" varchar,
  "indexedAt"   varchar not null
);
create table bsky.post (
  "uri"         varchar primary key,
  "cid"         varchar not null,
  "creator"     varchar not null,
  "text"        varchar not null,
  "replyRoot"   varchar,
  "replyParent" varchar,
  "createdAt"   varchar not null
);
create table bsky."like" (
  "uri"        varchar primary key,
  "cid"        varchar not null,
  "creator"    varchar not null,
  "subject"    varchar not null,
  "subjectCid" varchar not null,
  "createdAt"  varchar not null,
  constraint like_unique_subject unique ("subject", "creator")
);
create table bsky.repost (
  "uri"        varchar primary key,
  "cid"        varchar not null,
  "creator"    varchar not null,
  "subject"    varchar not null,
  "subjectCid" varchar not null,
  "createdAt"  varchar not null,
  constraint repost_unique_subject unique ("creator", "subject")
);
create table bsky.follow (
  "uri"        varchar primary key,
  "cid"        varchar not null,
  "creator"    varchar not null,
  "subjectDid" varchar not null,
  "createdAt"  varchar not null,
  constraint follow_unique_subject unique ("creator", "subjectDid")
);
create table bsky.actor_block (
  "uri"        varchar primary key,
  "cid"        varchar not null,
  "creator"    varchar not null,
  "subjectDid" varchar not null,
  "createdAt"  varchar not null,
  constraint actor_block_unique_subject unique ("creator", "subjectDid")
);
create table bsky.mute (
  "subjectDid"   varchar not null,
  "mutedByDid"   varchar not null,
  "createdAt"    varchar not null,
  primary key ("mutedByDid", "subjectDid")
);
create table bsky.list_block ("uri" varchar primary key, "creator" varchar not null, "subjectUri" varchar not null);
create table bsky.post_agg ("uri" varchar primary key, "likeCount" bigint not null default 0, "replyCount" bigint not null default 0);
