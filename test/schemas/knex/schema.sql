-- Knex: hand-written migrations, uuids, a denormalised counter kept by a trigger of the application, claps with a number, no enums.
create extension if not exists plpgsql;
create table knex_migrations (id serial primary key, name varchar(255), batch integer, migration_time timestamptz);
create table knex_migrations_lock (index serial primary key, is_locked integer);
create table members (
  member_id  uuid primary key default gen_random_uuid(),
  handle     varchar(40) not null unique,
  email      varchar(255) not null unique,
  deleted_at timestamptz,
  created_at timestamptz default now()
);
create table publications (
  publication_id uuid primary key default gen_random_uuid(),
  owner_id       uuid not null references members (member_id),
  title          varchar(255) not null
);
create table stories (
  story_id       uuid primary key default gen_random_uuid(),
  author_id      uuid not null references members (member_id),
  publication_id uuid references publications (publication_id),
  title          varchar(255) not null,
  clap_count     integer not null default 0,
  created_at     timestamptz default now()
);
create table claps (
  clap_id    uuid primary key default gen_random_uuid(),
  story_id   uuid not null references stories (story_id) on delete cascade,
  member_id  uuid not null references members (member_id) on delete cascade,
  count      smallint not null default 1,
  created_at timestamptz default now(),
  unique (member_id, story_id)
);
create function bump() returns trigger language plpgsql as $$
begin
  update stories set clap_count = clap_count + new.count where story_id = new.story_id;
  return null;
end $$;
create trigger bump after insert on claps for each row execute function bump();
create table responses_archive (response_id uuid primary key, story_id uuid, member_id uuid, body text);
create table story_comments (
  comment_id        uuid primary key default gen_random_uuid(),
  story_id          uuid not null references stories (story_id) on delete cascade,
  author_id         uuid not null references members (member_id),
  parent_comment_id uuid references story_comments (comment_id) on delete cascade,
  body              text not null,
  created_at        timestamptz default now()
);
create table comment_hearts (
  comment_id uuid not null references story_comments (comment_id) on delete cascade,
  member_id  uuid not null references members (member_id) on delete cascade,
  primary key (comment_id, member_id)
);
create table subscriptions (
  subscriber_id uuid not null references members (member_id),
  author_id     uuid not null references members (member_id),
  created_at    timestamptz default now(),
  primary key (subscriber_id, author_id)
);
create table publication_followers (
  publication_id uuid not null references publications (publication_id),
  member_id      uuid not null references members (member_id),
  primary key (publication_id, member_id)
);
create table bookmarks (
  story_id  uuid not null references stories (story_id),
  member_id uuid not null references members (member_id),
  primary key (story_id, member_id)
);
create table ignored_members (
  member_id         uuid not null references members (member_id),
  ignored_member_id uuid not null references members (member_id),
  primary key (member_id, ignored_member_id)
);
