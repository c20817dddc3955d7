insert into users (name, email, password, created_at) values ('Ada', 'a@x', 'x', now()), ('Bo', 'b@x', 'x', now()), ('Cleo', 'c@x', 'x', now());
insert into posts (user_id, title, created_at) values (1, 'hello', now());
insert into photos (user_id, path, created_at) values (2, 'p.jpg', now());
insert into likeables (user_id, likeable_type, likeable_id, created_at) values (2, 'App\Models\Post', 1, now());
insert into likeables (user_id, likeable_type, likeable_id, created_at) values (3, 'App\Models\Photo', 1, now());
insert into comments (commentable_type, commentable_id, user_id, body, created_at) values ('App\Models\Post', 1, 3, 'hi', now());
insert into user_mentions (post_id, mentioned_user_id, created_at) values (1, 3, now());
insert into followables (user_id, followable_type, followable_id, accepted_at, created_at) values (3, 'App\Models\User', 1, now(), now());
insert into followables (user_id, followable_type, followable_id, created_at) values (2, 'App\Models\User', 3, now());
-- Answers: to Ada below her own post, and to Ada below Bo's photo of the same number.
insert into comments (commentable_type, commentable_id, user_id, body, created_at) values ('App\Models\Post', 1, 1, 'mine', now());
insert into comments (commentable_type, commentable_id, parent_id, user_id, body, created_at) values ('App\Models\Post', 1, 2, 2, 'yours', now());
insert into comments (commentable_type, commentable_id, user_id, body, created_at) values ('App\Models\Photo', 1, 1, 'nice', now());
insert into comments (commentable_type, commentable_id, parent_id, user_id, body, created_at) values ('App\Models\Photo', 1, 4, 3, 'indeed', now());
