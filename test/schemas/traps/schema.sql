-- An application for work, full of names that mean something else: accounts are customers, blocks make up pages, messages wait in a queue.
create table accounts (id bigserial primary key, name varchar not null, subdomain varchar unique);
create table users (id bigserial primary key, account_id bigint not null references accounts (id), email varchar not null, name varchar not null, admin boolean);
create table projects (id bigserial primary key, account_id bigint not null references accounts (id), owner_id bigint not null references users (id), name varchar);
create table tasks (
  id          bigserial primary key,
  account_id  bigint not null references accounts (id),
  project_id  bigint not null references projects (id),
  creator_id  bigint not null references users (id),
  assignee_id bigint references users (id),
  title       varchar not null
);
create table comments (
  id         bigserial primary key,
  account_id bigint not null references accounts (id),
  task_id    bigint not null references tasks (id),
  user_id    bigint not null references users (id),
  body       text
);
create table task_followers (task_id bigint references tasks (id), user_id bigint references users (id));
create table subscriptions (id bigserial primary key, account_id bigint references accounts (id), plan varchar);
create table blocks (id bigserial primary key, page_id bigint, kind varchar, content jsonb, created_by bigint references users (id), updated_by bigint references users (id));
create table messages (id bigserial primary key, queue varchar, payload jsonb, user_id bigint references users (id));
create table like_counts (task_id bigint primary key references tasks (id), user_id bigint references users (id), count int);
create table reaction_types (id bigserial primary key, name varchar);
create table survey_votes (id bigserial primary key, user_id bigint references users (id), task_id bigint references tasks (id));
create table user_preferences (user_id bigint primary key references users (id), likes_enabled boolean, comments_enabled boolean);
-- Rails' acts_as_follower, and a text of which nothing says what it can be.
create table follows (
  id              bigserial primary key,
  follower_id     bigint not null,
  follower_type   varchar not null,
  followable_id   bigint not null,
  followable_type varchar not null,
  blocked         boolean not null default false
);
create table reactions (
  id       bigserial primary key,
  user_id  bigint not null references users (id),
  task_id  bigint not null references tasks (id),
  category varchar not null
);
-- Two people, and no hint at what they have to do with each other.
create table relationships (id bigserial primary key, user_one_id bigint references users (id), user_two_id bigint references users (id), status smallint);
create table user_follows (user_id bigint not null references users (id), other_id bigint not null references users (id), primary key (user_id, other_id));
create table follow_pairs (a_id bigint not null references users (id), b_id bigint not null references users (id), primary key (a_id, b_id));
