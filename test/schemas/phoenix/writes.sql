insert into users (handle, hashed_password) values ('ada', 'x'), ('bo', 'x'), ('cleo', 'x'), ('dora', 'x');
insert into user_relations (source_id, target_id, kind) values (1, 4, 'block');
insert into posts (user_id, body) values (1, 'hello');
insert into likes (user_id, post_id) values (2, 1) on conflict do nothing;
insert into likes (user_id, post_id) values (4, 1) on conflict do nothing;
insert into replies (user_id, post_id, body) values (3, 1, 'hi');
insert into user_relations (source_id, target_id, kind) values (2, 3, 'follow');
insert into posts (user_id, body, mentioned_user_ids) values (2, 'with @cleo', '{3}');
