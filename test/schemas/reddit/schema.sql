-- In the manner of Reddit and Lemmy: communities, votes of 1 and -1 and 0, comments under a path as ltree has it (kept as text here).
create table person (
  id           serial primary key,
  name         varchar(255) not null unique,
  display_name varchar(255),
  banned       boolean not null default false,
  deleted      boolean not null default false
);
create table community (
  id    serial primary key,
  name  varchar(255) not null unique,
  title varchar(255) not null
);
create table post (
  id           serial primary key,
  name         varchar(200) not null,
  body         text,
  creator_id   int not null references person on update cascade on delete cascade,
  community_id int not null references community on update cascade on delete cascade,
  removed      boolean not null default false,
  deleted      boolean not null default false,
  published    timestamptz not null default now()
);
create table comment (
  id         serial primary key,
  creator_id int not null references person on update cascade on delete cascade,
  post_id    int not null references post on update cascade on delete cascade,
  content    text not null,
  removed    boolean not null default false,
  deleted    boolean not null default false,
  path       text not null default '0',
  published  timestamptz not null default now()
);
create table post_vote (
  post_id   int not null references post on update cascade on delete cascade,
  person_id int not null references person on update cascade on delete cascade,
  score     smallint not null check (score in (-1, 0, 1)),
  published timestamptz not null default now(),
  primary key (person_id, post_id)
);
create table comment_vote (
  comment_id int not null references comment on update cascade on delete cascade,
  person_id  int not null references person on update cascade on delete cascade,
  score      smallint not null,
  published  timestamptz not null default now(),
  primary key (person_id, comment_id)
);
create table community_follower (
  community_id int not null references community on update cascade on delete cascade,
  person_id    int not null references person on update cascade on delete cascade,
  primary key (person_id, community_id)
);
create table person_block (
  person_id int not null references person on update cascade on delete cascade,
  target_id int not null references person on update cascade on delete cascade,
  primary key (person_id, target_id)
);
create table community_block (
  person_id    int not null references person on update cascade on delete cascade,
  community_id int not null references community on update cascade on delete cascade,
  primary key (person_id, community_id)
);
create table private_message (
  id           serial primary key,
  creator_id   int not null references person on update cascade on delete cascade,
  recipient_id int not null references person on update cascade on delete cascade,
  content      text not null,
  deleted      boolean not null default false
);
create table person_mention (
  id           serial primary key,
  recipient_id int not null references person on update cascade on delete cascade,
  comment_id   int not null references comment on update cascade on delete cascade,
  read         boolean not null default false,
  unique (recipient_id, comment_id)
);
create table post_report (
  id         serial primary key,
  creator_id int not null references person on update cascade on delete cascade,
  post_id    int not null references post on update cascade on delete cascade,
  reason     text not null
);
