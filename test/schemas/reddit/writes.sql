-- As Diesel sends it: upserts of votes, and an update for the path once the id is known.
INSERT INTO "person" ("name", "display_name") VALUES ('ada', 'Ada'), ('bo', 'Bo'), ('cleo', 'Cleo') RETURNING "person"."id";
INSERT INTO "community" ("name", "title") VALUES ('bells', 'Bells') RETURNING "community"."id";
INSERT INTO "post" ("name", "body", "creator_id", "community_id") VALUES ('Bells', 'Hello', 1, 1) RETURNING "post"."id";
INSERT INTO "post_vote" ("post_id", "person_id", "score") VALUES (1, 1, 1) ON CONFLICT ("person_id", "post_id") DO UPDATE SET "score" = excluded."score";
INSERT INTO "post_vote" ("post_id", "person_id", "score") VALUES (1, 2, -1) ON CONFLICT ("person_id", "post_id") DO UPDATE SET "score" = excluded."score";
-- Changed their mind.
INSERT INTO "post_vote" ("post_id", "person_id", "score") VALUES (1, 2, 1) ON CONFLICT ("person_id", "post_id") DO UPDATE SET "score" = excluded."score";
INSERT INTO "post_vote" ("post_id", "person_id", "score") VALUES (1, 3, 1) ON CONFLICT ("person_id", "post_id") DO UPDATE SET "score" = excluded."score";
INSERT INTO "post_vote" ("post_id", "person_id", "score") VALUES (1, 3, 0) ON CONFLICT ("person_id", "post_id") DO UPDATE SET "score" = excluded."score";
BEGIN;
INSERT INTO "comment" ("creator_id", "post_id", "content") VALUES (2, 1, 'First') RETURNING "comment"."id";
UPDATE "comment" SET "path" = '0.1' WHERE "comment"."id" = 1;
COMMIT;
INSERT INTO "comment_vote" ("comment_id", "person_id", "score") VALUES (1, 1, 1) ON CONFLICT ("person_id", "comment_id") DO UPDATE SET "score" = excluded."score";
INSERT INTO "comment_vote" ("comment_id", "person_id", "score") VALUES (1, 3, -1) ON CONFLICT ("person_id", "comment_id") DO UPDATE SET "score" = excluded."score";
BEGIN;
INSERT INTO "comment" ("creator_id", "post_id", "content") VALUES (1, 1, 'Thanks @cleo') RETURNING "comment"."id";
UPDATE "comment" SET "path" = '0.1.2' WHERE "comment"."id" = 2;
INSERT INTO "person_mention" ("recipient_id", "comment_id") VALUES (3, 2);
COMMIT;
INSERT INTO "private_message" ("creator_id", "recipient_id", "content") VALUES (3, 2, 'Hi') RETURNING "private_message"."id";
INSERT INTO "community_follower" ("community_id", "person_id") VALUES (1, 2) ON CONFLICT DO NOTHING;
-- Mods remove a comment.
INSERT INTO "comment" ("creator_id", "post_id", "content", "path") VALUES (3, 1, 'Spam', '0.3') RETURNING "comment"."id";
UPDATE "comment" SET "removed" = true WHERE "comment"."id" = 3;
