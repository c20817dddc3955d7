-- As PostgREST sends it: JSON turned into rows.
INSERT INTO auth.users (id, email) VALUES ('00000000-0000-4000-8000-00000000000a', 'ada@example.org'), ('00000000-0000-4000-8000-00000000000b', 'bo@example.org'), ('00000000-0000-4000-8000-00000000000c', 'cleo@example.org');
INSERT INTO public.profiles (id, username, full_name) VALUES ('00000000-0000-4000-8000-00000000000a', 'ada', 'Ada'), ('00000000-0000-4000-8000-00000000000b', 'bo', 'Bo'), ('00000000-0000-4000-8000-00000000000c', 'cleo', 'Cleo');
WITH pgrst_source AS (INSERT INTO "public"."posts"("content", "user_id") SELECT "pgrst_body"."content", "pgrst_body"."user_id" FROM json_to_record('{"content": "Hello", "user_id": "00000000-0000-4000-8000-00000000000a"}'::json) AS pgrst_body("content" text, "user_id" uuid) RETURNING "public"."posts".*) SELECT count(*) FROM pgrst_source;
WITH pgrst_source AS (INSERT INTO "public"."likes"("post_id", "user_id") SELECT "pgrst_body"."post_id", "pgrst_body"."user_id" FROM json_to_record('{"post_id": 1, "user_id": "00000000-0000-4000-8000-00000000000b"}'::json) AS pgrst_body("post_id" bigint, "user_id" uuid) RETURNING 1) SELECT count(*) FROM pgrst_source;
WITH pgrst_source AS (INSERT INTO "public"."comments"("content", "post_id", "user_id") SELECT "pgrst_body"."content", "pgrst_body"."post_id", "pgrst_body"."user_id" FROM json_to_record('{"content": "First", "post_id": 1, "user_id": "00000000-0000-4000-8000-00000000000c"}'::json) AS pgrst_body("content" text, "post_id" bigint, "user_id" uuid) RETURNING 1) SELECT count(*) FROM pgrst_source;
BEGIN;
INSERT INTO public.rooms (id, name) VALUES ('10000000-0000-4000-8000-000000000001', 'Tower');
INSERT INTO public.room_participants (room_id, profile_id, left_at) VALUES ('10000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000a', NULL), ('10000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000b', NULL), ('10000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000c', '2026-01-15T12:00:00Z');
COMMIT;
INSERT INTO public.messages (room_id, profile_id, content) VALUES ('10000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000a', 'Is anybody here?');
