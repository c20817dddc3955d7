-- As Prisma's client sends it.
BEGIN;
INSERT INTO "public"."User" ("id", "email", "name", "createdAt") VALUES ('cku_ada', 'ada@example.org', 'Ada', '2026-01-15 12:00:00'), ('cku_bo', 'bo@example.org', 'Bo', '2026-01-15 12:00:00'), ('cku_cleo', 'cleo@example.org', 'Cleo', '2026-01-15 12:00:00');
COMMIT;
INSERT INTO "public"."Post" ("id", "title", "content", "published", "authorId", "createdAt", "updatedAt") VALUES ('ckp_1', 'Bells', 'Hello', true, 'cku_ada', '2026-01-15 12:00:00', '2026-01-15 12:00:00') RETURNING "public"."Post"."id";
BEGIN;
INSERT INTO "public"."_PostLikes" ("A", "B") VALUES ('ckp_1', 'cku_bo') ON CONFLICT DO NOTHING;
COMMIT;
INSERT INTO "public"."Comment" ("id", "text", "authorId", "postId", "createdAt") VALUES ('ckc_1', 'First', 'cku_bo', 'ckp_1', '2026-01-15 12:01:00') RETURNING "public"."Comment"."id";
-- Ada answers: as the post's owner she hears of nothing, Bo of the answer.
INSERT INTO "public"."Comment" ("id", "text", "authorId", "postId", "parentId", "createdAt") VALUES ('ckc_2', 'Thanks', 'cku_ada', 'ckp_1', 'ckc_1', '2026-01-15 12:02:00') RETURNING "public"."Comment"."id";
-- Bo answers that: Ada, whose post it is, hears of it once.
INSERT INTO "public"."Comment" ("id", "text", "authorId", "postId", "parentId", "createdAt") VALUES ('ckc_3', 'Welcome', 'cku_bo', 'ckp_1', 'ckc_2', '2026-01-15 12:03:00') RETURNING "public"."Comment"."id";
INSERT INTO "public"."Reaction" ("userId", "commentId", "type") VALUES ('cku_cleo', 'ckc_1', 'LOVE'::"public"."ReactionType") RETURNING "userId";
INSERT INTO "public"."Reaction" ("userId", "commentId", "type") VALUES ('cku_cleo', 'ckc_2', 'DISLIKE'::"public"."ReactionType") RETURNING "userId";
INSERT INTO "public"."Follow" ("followerId", "followingId", "status") VALUES ('cku_cleo', 'cku_ada', 'PENDING'::"public"."FollowStatus") RETURNING "followerId";
INSERT INTO "public"."Follow" ("followerId", "followingId", "status") VALUES ('cku_bo', 'cku_ada', 'PENDING'::"public"."FollowStatus") RETURNING "followerId";
UPDATE "public"."Follow" SET "status" = 'ACCEPTED'::"public"."FollowStatus" WHERE ("public"."Follow"."followerId" = 'cku_bo' AND "public"."Follow"."followingId" = 'cku_ada');
BEGIN;
INSERT INTO "public"."_UserFollows" ("A", "B") VALUES ('cku_cleo', 'cku_bo') ON CONFLICT DO NOTHING;
COMMIT;
