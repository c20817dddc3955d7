-- As Knex sends it.
insert into "members" ("member_id", "handle", "email") values ('a0000000-0000-4000-8000-000000000001', 'ada', 'ada@example.org'), ('a0000000-0000-4000-8000-000000000002', 'bo', 'bo@example.org'), ('a0000000-0000-4000-8000-000000000003', 'cleo', 'cleo@example.org') returning "member_id";
insert into "publications" ("publication_id", "owner_id", "title") values ('b0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000003', 'Towers');
insert into "stories" ("story_id", "author_id", "publication_id", "title") values ('c0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001', 'Bells') returning "story_id";
BEGIN;
insert into "claps" ("member_id", "story_id", "count") values ('a0000000-0000-4000-8000-000000000002', 'c0000000-0000-4000-8000-000000000001', 1) on conflict ("member_id", "story_id") do update set "count" = claps.count + excluded.count;
COMMIT;
insert into "claps" ("member_id", "story_id", "count") values ('a0000000-0000-4000-8000-000000000002', 'c0000000-0000-4000-8000-000000000001', 5) on conflict ("member_id", "story_id") do update set "count" = claps.count + excluded.count;
insert into "story_comments" ("comment_id", "story_id", "author_id", "body") values ('d0000000-0000-4000-8000-000000000001', 'c0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000002', 'First') returning *;
insert into "comment_hearts" ("comment_id", "member_id") values ('d0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000001');
insert into "subscriptions" ("subscriber_id", "author_id") values ('a0000000-0000-4000-8000-000000000002', 'a0000000-0000-4000-8000-000000000001');
insert into "publication_followers" ("publication_id", "member_id") values ('b0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000002');
insert into "bookmarks" ("story_id", "member_id") values ('c0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000003');
