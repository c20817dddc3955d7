-- The application that the demo and the tests watch: a small social network. It knows nothing of Belfry.

create table public.users (
  id                    bigint      generated always as identity primary key,
  full_name             text        not null,
  notifications_enabled boolean     not null default true,
  deleted_at            timestamptz
);

create table public.posts (
  id         bigint      generated always as identity primary key,
  user_id    bigint      not null references public.users on delete cascade,
  body       text        not null,
  created_at timestamptz not null default now()
);
create index posts_user_id on public.posts (user_id);

create table public.likes (
  user_id    bigint      not null references public.users on delete cascade,
  post_id    bigint      not null references public.posts on delete cascade,
  created_at timestamptz not null default now(),
  primary key (user_id, post_id)
);
create index likes_post_id on public.likes (post_id);

create table public.comments (
  id         bigint      generated always as identity primary key,
  post_id    bigint      not null references public.posts on delete cascade,
  user_id    bigint      not null references public.users on delete cascade,
  content    text        not null,
  created_at timestamptz not null default now(),
  deleted_at timestamptz
);
create index comments_post_id on public.comments (post_id);

create table public.follows (
  follower_id bigint      not null references public.users on delete cascade,
  followed_id bigint      not null references public.users on delete cascade,
  created_at  timestamptz not null default now(),
  primary key (follower_id, followed_id)
);
create index follows_followed_id on public.follows (followed_id);

create table public.blocks (
  blocker_id bigint not null references public.users on delete cascade,
  blocked_id bigint not null references public.users on delete cascade,
  primary key (blocker_id, blocked_id)
);
create index blocks_blocked_id on public.blocks (blocked_id);
