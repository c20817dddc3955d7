-- As ActiveRecord sends it: one statement a save, explicit transactions, RETURNING, times written out.
BEGIN;
INSERT INTO "users" ("email", "encrypted_password", "username", "display_name", "notifications_enabled", "locale", "discarded_at", "created_at", "updated_at") VALUES ('ada@example.org', 'x', 'ada', 'Ada', TRUE, 'en', NULL, '2026-01-15 12:00:00', '2026-01-15 12:00:00') RETURNING "id";
INSERT INTO "users" ("email", "encrypted_password", "username", "display_name", "notifications_enabled", "locale", "discarded_at", "created_at", "updated_at") VALUES ('bo@example.org', 'x', 'bo', 'Bo', TRUE, 'en', NULL, '2026-01-15 12:00:00', '2026-01-15 12:00:00') RETURNING "id";
INSERT INTO "users" ("email", "encrypted_password", "username", "display_name", "notifications_enabled", "locale", "discarded_at", "created_at", "updated_at") VALUES ('cleo@example.org', 'x', 'cleo', 'Cleo', TRUE, 'en', NULL, '2026-01-15 12:00:00', '2026-01-15 12:00:00') RETURNING "id";
COMMIT;
BEGIN;
INSERT INTO "posts" ("user_id", "title", "body", "likes_count", "published_at", "discarded_at", "created_at", "updated_at") VALUES (1, 'Bells', 'Hello', 0, '2026-01-15 12:00:00', NULL, '2026-01-15 12:00:00', '2026-01-15 12:00:00') RETURNING "id";
COMMIT;
BEGIN;
INSERT INTO "likes" ("user_id", "likeable_type", "likeable_id", "created_at", "updated_at") VALUES (2, 'Post', 1, '2026-01-15 12:01:00', '2026-01-15 12:01:00') RETURNING "id";
UPDATE "posts" SET "likes_count" = COALESCE("likes_count", 0) + 1 WHERE "posts"."id" = 1;
COMMIT;
BEGIN;
INSERT INTO "comments" ("post_id", "user_id", "parent_id", "body", "discarded_at", "created_at", "updated_at") VALUES (1, 2, NULL, 'First', NULL, '2026-01-15 12:02:00', '2026-01-15 12:02:00') RETURNING "id";
COMMIT;
BEGIN;
INSERT INTO "comments" ("post_id", "user_id", "parent_id", "body", "discarded_at", "created_at", "updated_at") VALUES (1, 3, 1, 'An answer', NULL, '2026-01-15 12:03:00', '2026-01-15 12:03:00') RETURNING "id";
COMMIT;
BEGIN;
INSERT INTO "likes" ("user_id", "likeable_type", "likeable_id", "created_at", "updated_at") VALUES (3, 'Comment', 1, '2026-01-15 12:04:00', '2026-01-15 12:04:00') RETURNING "id";
COMMIT;
BEGIN;
INSERT INTO "relationships" ("follower_id", "followed_id", "created_at", "updated_at") VALUES (2, 1, '2026-01-15 12:05:00', '2026-01-15 12:05:00') RETURNING "id";
COMMIT;
BEGIN;
INSERT INTO "conversations" ("created_at", "updated_at") VALUES ('2026-01-15 12:06:00', '2026-01-15 12:06:00') RETURNING "id";
INSERT INTO "conversation_participants" ("conversation_id", "user_id", "created_at", "updated_at") VALUES (1, 1, '2026-01-15 12:06:00', '2026-01-15 12:06:00') RETURNING "id";
INSERT INTO "conversation_participants" ("conversation_id", "user_id", "created_at", "updated_at") VALUES (1, 3, '2026-01-15 12:06:00', '2026-01-15 12:06:00') RETURNING "id";
INSERT INTO "messages" ("conversation_id", "user_id", "body", "created_at", "updated_at") VALUES (1, 3, 'Hi', '2026-01-15 12:06:00', '2026-01-15 12:06:00') RETURNING "id";
COMMIT;
-- Ada likes her own post: nobody hears of it.
BEGIN;
INSERT INTO "likes" ("user_id", "likeable_type", "likeable_id", "created_at", "updated_at") VALUES (1, 'Post', 1, '2026-01-15 12:07:00', '2026-01-15 12:07:00') RETURNING "id";
COMMIT;
-- A comment that is discarded in the transaction that made it.
BEGIN;
INSERT INTO "comments" ("post_id", "user_id", "parent_id", "body", "discarded_at", "created_at", "updated_at") VALUES (1, 3, NULL, 'Oops', NULL, '2026-01-15 12:08:00', '2026-01-15 12:08:00') RETURNING "id";
UPDATE "comments" SET "discarded_at" = '2026-01-15 12:08:00', "updated_at" = '2026-01-15 12:08:00' WHERE "comments"."id" = 3;
COMMIT;
-- Whom Ada has blocked she doesn't hear of.
BEGIN;
INSERT INTO "blocks" ("blocker_id", "blocked_id", "created_at", "updated_at") VALUES (1, 3, '2026-01-15 12:09:00', '2026-01-15 12:09:00') RETURNING "id";
COMMIT;
