-- As Django's ORM sends it: autocommit, or atomic() around several.
INSERT INTO "django_content_type" ("app_label", "model") VALUES ('auth', 'user'), ('blog', 'post'), ('blog', 'comment');
INSERT INTO "auth_user" ("password", "last_login", "is_superuser", "username", "first_name", "last_name", "email", "is_staff", "is_active", "date_joined") VALUES ('x', NULL, false, 'ada', 'Ada', '', 'ada@example.org', false, true, '2026-01-15T12:00:00+00:00'::timestamptz) RETURNING "auth_user"."id";
INSERT INTO "auth_user" ("password", "last_login", "is_superuser", "username", "first_name", "last_name", "email", "is_staff", "is_active", "date_joined") VALUES ('x', NULL, false, 'bo', 'Bo', '', 'bo@example.org', false, true, '2026-01-15T12:00:00+00:00'::timestamptz) RETURNING "auth_user"."id";
INSERT INTO "auth_user" ("password", "last_login", "is_superuser", "username", "first_name", "last_name", "email", "is_staff", "is_active", "date_joined") VALUES ('x', NULL, false, 'cleo', 'Cleo', '', 'cleo@example.org', false, true, '2026-01-15T12:00:00+00:00'::timestamptz) RETURNING "auth_user"."id";
-- The profiles' ids are not the users'.
INSERT INTO "accounts_profile" ("id", "display_name", "bio", "user_id") VALUES (101, 'Ada', '', 1), (102, 'Bo', '', 2), (103, 'Cleo', '', 3) RETURNING "accounts_profile"."id";
INSERT INTO "blog_post" ("title", "body", "status", "created_at", "author_id") VALUES ('Bells', 'Hello', 'published', '2026-01-15T12:00:00+00:00'::timestamptz, 101) RETURNING "blog_post"."id";
BEGIN;
INSERT INTO "blog_post_likes" ("post_id", "profile_id") VALUES (1, 102), (1, 103) ON CONFLICT DO NOTHING;
COMMIT;
INSERT INTO "blog_comment" ("text", "is_removed", "created_at", "author_id", "post_id") VALUES ('First', false, '2026-01-15T12:01:00+00:00'::timestamptz, 102, 1) RETURNING "blog_comment"."id";
INSERT INTO "accounts_userfollow" ("created", "user_from_id", "user_to_id") VALUES ('2026-01-15T12:02:00+00:00'::timestamptz, 3, 1) RETURNING "accounts_userfollow"."id";
BEGIN;
INSERT INTO "reactions_reaction" ("emoji", "object_id", "content_type_id", "user_id") SELECT '+1', 1, c.id, 3 FROM django_content_type c WHERE c.model = 'comment' RETURNING "reactions_reaction"."id";
COMMIT;
INSERT INTO "accounts_friendrequest" ("created", "status", "from_user_id", "to_user_id") VALUES ('2026-01-15T12:03:00+00:00'::timestamptz, 'pending', 3, 2) RETURNING "accounts_friendrequest"."id";
INSERT INTO "accounts_friendrequest" ("created", "status", "from_user_id", "to_user_id") VALUES ('2026-01-15T12:03:00+00:00'::timestamptz, 'pending', 2, 1) RETURNING "accounts_friendrequest"."id";
-- Answered: it leaves Ada's list.
UPDATE "accounts_friendrequest" SET "created" = '2026-01-15T12:03:00+00:00'::timestamptz, "status" = 'accepted', "from_user_id" = 2, "to_user_id" = 1 WHERE "accounts_friendrequest"."id" = 2;
