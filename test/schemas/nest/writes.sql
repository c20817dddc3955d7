insert into "user_entity" ("id", "username", "passwordHash") values
  ('00000000-0000-4000-8000-000000000001', 'ada', 'x'), ('00000000-0000-4000-8000-000000000002', 'bo', 'x'),
  ('00000000-0000-4000-8000-000000000003', 'cleo', 'x'), ('00000000-0000-4000-8000-000000000004', 'dora', 'x');
insert into "block_entity" ("blockerId", "blockedId", "isActive") values
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000004', true),
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', false);
insert into "post_entity" ("id", "title", "userEntityId") values ('10000000-0000-4000-8000-000000000001', 'hello', '00000000-0000-4000-8000-000000000001');
insert into "post_like_entity" ("userEntityId", "postEntityId") values ('00000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001');
insert into "post_like_entity" ("userEntityId", "postEntityId") values ('00000000-0000-4000-8000-000000000004', '10000000-0000-4000-8000-000000000001');
insert into "comment_entity" ("id", "text", "postEntityId", "userEntityId") values
  ('20000000-0000-4000-8000-000000000001', 'hi @cleo', '10000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002');
insert into "comment_mention_entity" ("commentEntityId", "mentionedUserId") values ('20000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003');
insert into "user_entity_following_user_entity" values ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001');
