-- As Sequelize sends it; upsert writes equal values, bulkCreate several rows at once.
INSERT INTO "Users" ("id","username","fullName","isBanned") VALUES (DEFAULT,'ada','Ada',false) RETURNING "id","username","fullName","isBanned";
INSERT INTO "Users" ("id","username","fullName","isBanned") VALUES (DEFAULT,'bo','Bo',false) RETURNING "id","username","fullName","isBanned";
INSERT INTO "Users" ("id","username","fullName","isBanned") VALUES (DEFAULT,'cleo','Cleo',false) RETURNING "id","username","fullName","isBanned";
INSERT INTO "Stories" ("id","headline","isPrivate","UserId") VALUES (DEFAULT,'Bells',false,1) RETURNING "id","headline","isPrivate","UserId";
START TRANSACTION;
INSERT INTO "Favorites" ("UserId","StoryId") VALUES (2,1) ON CONFLICT ("UserId","StoryId") DO UPDATE SET "UserId"=EXCLUDED."UserId" RETURNING "UserId","StoryId";
COMMIT;
INSERT INTO "Favorites" ("UserId","StoryId") VALUES (2,1) ON CONFLICT ("UserId","StoryId") DO UPDATE SET "UserId"=EXCLUDED."UserId" RETURNING "UserId","StoryId";
INSERT INTO "Reactions" ("id","kind","UserId","StoryId") VALUES (DEFAULT,'clap',3,1),(DEFAULT,'heart',3,1) RETURNING "id";
INSERT INTO "Replies" ("id","body","authorId","StoryId") VALUES (DEFAULT,'First',3,1) RETURNING "id","body","authorId","StoryId";
INSERT INTO "UserFollowers" ("followerId","followingId") VALUES (2,3) RETURNING "followerId","followingId";
INSERT INTO "Chats" ("id","user1Id","user2Id") VALUES (DEFAULT,1,2) RETURNING "id";
INSERT INTO "ChatMessages" ("id","text","ChatId","UserId") VALUES (DEFAULT,'Hi',1,2) RETURNING "id";
INSERT INTO "Mentions" ("id","StoryId","mentionedUserId") VALUES (DEFAULT,1,3) RETURNING "id";
INSERT INTO "Friends" ("user1Id","user2Id") VALUES (2,1);
