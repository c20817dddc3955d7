-- The application of the examples: it knows nothing of Belfry.

create table public.users (
  id                    bigint  generated always as identity primary key,
  full_name             text    not null,
  notifications_enabled boolean not null default true
);

create table public.posts (
  id      bigint generated always as identity primary key,
  user_id bigint not null references public.users on delete cascade,
  body    text   not null
);

create table public.likes (
  user_id bigint not null references public.users on delete cascade,
  post_id bigint not null references public.posts on delete cascade,
  primary key (user_id, post_id)
);
create index likes_post_id on public.likes (post_id);

create table public.comments (
  id      bigint generated always as identity primary key,
  post_id bigint not null references public.posts on delete cascade,
  user_id bigint not null references public.users on delete cascade,
  content text   not null
);
create index comments_post_id on public.comments (post_id);

create table public.follows (
  follower_id bigint not null references public.users on delete cascade,
  followed_id bigint not null references public.users on delete cascade,
  primary key (follower_id, followed_id)
);

insert into public.users (full_name) values ('Ada'), ('Bo'), ('Cleo');
insert into public.posts (user_id, body) values (1, 'Hello');
