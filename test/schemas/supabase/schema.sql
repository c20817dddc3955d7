-- In the manner of Supabase: users in a schema of the platform, profiles that share their ids, some tables refer to one, some to the other.
create schema auth;
create table auth.users (id uuid primary key, email varchar(255), encrypted_password varchar(255), created_at timestamptz);
create table auth.sessions (id uuid primary key, user_id uuid not null references auth.users (id) on delete cascade);
create table public.profiles (
  id         uuid primary key references auth.users (id) on delete cascade,
  username   text unique,
  full_name  text,
  avatar_url text
);
create table public.posts (
  id         bigint generated always as identity primary key,
  user_id    uuid not null default gen_random_uuid() references public.profiles (id) on delete cascade,
  content    text,
  is_public  boolean not null default true,
  created_at timestamptz not null default now()
);
create table public.likes (
  user_id uuid references public.profiles (id) on delete cascade,
  post_id bigint references public.posts (id) on delete cascade,
  primary key (user_id, post_id)
);
create table public.comments (
  id         uuid primary key default gen_random_uuid(),
  post_id    bigint not null references public.posts (id) on delete cascade,
  user_id    uuid not null references auth.users (id) on delete cascade,
  content    text not null,
  created_at timestamptz not null default now()
);
create table public.rooms (id uuid primary key default gen_random_uuid(), name text);
create table public.room_participants (
  room_id    uuid not null references public.rooms (id) on delete cascade,
  profile_id uuid not null references public.profiles (id) on delete cascade,
  left_at    timestamptz,
  primary key (room_id, profile_id)
);
create table public.messages (
  id         uuid primary key default gen_random_uuid(),
  room_id    uuid not null references public.rooms (id) on delete cascade,
  profile_id uuid not null references public.profiles (id) on delete cascade,
  content    text not null check (char_length(content) > 0),
  created_at timestamptz not null default now()
);
