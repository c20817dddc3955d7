-- As Eloquent sends it.
insert into "users" ("name", "email", "password", "updated_at", "created_at") values ('Ada', 'ada@example.org', 'x', '2026-01-15 12:00:00', '2026-01-15 12:00:00') returning "id";
insert into "users" ("name", "email", "password", "updated_at", "created_at") values ('Bo', 'bo@example.org', 'x', '2026-01-15 12:00:00', '2026-01-15 12:00:00') returning "id";
insert into "users" ("name", "email", "password", "updated_at", "created_at") values ('Cleo', 'cleo@example.org', 'x', '2026-01-15 12:00:00', '2026-01-15 12:00:00') returning "id";
insert into "users" ("name", "email", "password", "banned_at", "updated_at", "created_at") values ('Mal', 'mal@example.org', 'x', '2026-01-15 12:00:00', '2026-01-15 12:00:00', '2026-01-15 12:00:00') returning "id";
insert into "articles" ("user_id", "title", "body", "updated_at", "created_at") values (1, 'Bells', 'Hello', '2026-01-15 12:00:00', '2026-01-15 12:00:00') returning "id";
insert into "videos" ("user_id", "url", "updated_at", "created_at") values (2, 'https://example.org/v', '2026-01-15 12:00:00', '2026-01-15 12:00:00') returning "id";
insert into "favorites" ("user_id", "favoriteable_type", "favoriteable_id", "created_at", "updated_at") values (2, 'App\Models\Article', 1, '2026-01-15 12:01:00', '2026-01-15 12:01:00');
insert into "favorites" ("user_id", "favoriteable_type", "favoriteable_id", "created_at", "updated_at") values (1, 'App\Models\Video', 1, '2026-01-15 12:01:00', '2026-01-15 12:01:00');
-- Taken back.
insert into "favorites" ("user_id", "favoriteable_type", "favoriteable_id", "created_at", "updated_at") values (3, 'App\Models\Article', 1, '2026-01-15 12:01:00', '2026-01-15 12:01:00');
delete from "favorites" where "user_id" = 3 and "favoriteable_type" = 'App\Models\Article' and "favoriteable_id" = 1;
insert into "comments" ("user_id", "commentable_type", "commentable_id", "body", "updated_at", "created_at") values (3, 'App\Models\Article', 1, 'First', '2026-01-15 12:02:00', '2026-01-15 12:02:00') returning "id";
insert into "comments" ("user_id", "commentable_type", "commentable_id", "body", "updated_at", "created_at") values (2, 'App\Models\Article', 1, 'Oops', '2026-01-15 12:02:00', '2026-01-15 12:02:00') returning "id";
update "comments" set "deleted_at" = '2026-01-15 12:03:00', "updated_at" = '2026-01-15 12:03:00' where "id" = 2;
-- attach()
insert into "follower_user" ("follower_id", "user_id", "created_at", "updated_at") values (3, 1, '2026-01-15 12:04:00', '2026-01-15 12:04:00');
-- Somebody who is banned.
insert into "follower_user" ("follower_id", "user_id", "created_at", "updated_at") values (4, 1, '2026-01-15 12:04:00', '2026-01-15 12:04:00');
insert into "friendships" ("requester_id", "addressee_id", "updated_at", "created_at") values (3, 2, '2026-01-15 12:05:00', '2026-01-15 12:05:00') returning "id";
update "friendships" set "status" = 'accepted', "updated_at" = '2026-01-15 12:06:00' where "id" = 1;
insert into "messages" ("sender_id", "receiver_id", "message", "updated_at", "created_at") values (1, 3, 'Hi', '2026-01-15 12:07:00', '2026-01-15 12:07:00') returning "id";
-- Muted for ever, and until a time that is long past.
insert into "user_mutes" ("user_id", "muted_user_id", "updated_at", "created_at") values (2, 1, '2026-01-15 12:08:00', '2026-01-15 12:08:00') returning "id";
insert into "messages" ("sender_id", "receiver_id", "message", "updated_at", "created_at") values (1, 2, 'Are you there?', '2026-01-15 12:09:00', '2026-01-15 12:09:00') returning "id";
