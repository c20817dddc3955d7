-- As TypeORM sends it.
START TRANSACTION;
INSERT INTO "user"("id", "createdAt", "username", "name", "isSuspended", "isDeleted", "notesCount") VALUES ('9ada', '2026-01-15T12:00:00Z', 'ada', 'Ada', DEFAULT, DEFAULT, DEFAULT), ('9bo', '2026-01-15T12:00:00Z', 'bo', 'Bo', DEFAULT, DEFAULT, DEFAULT), ('9cleo', '2026-01-15T12:00:00Z', 'cleo', 'Cleo', DEFAULT, DEFAULT, DEFAULT) RETURNING "isSuspended", "isDeleted", "notesCount";
INSERT INTO "user_profile"("userId", "description", "email") VALUES ('9ada', NULL, 'ada@example.org');
COMMIT;
INSERT INTO "note"("id", "replyId", "renoteId", "text", "userId", "visibility") VALUES ('9n1', DEFAULT, DEFAULT, 'Hello', '9ada', 'public');
START TRANSACTION;
INSERT INTO "note_reaction"("id", "userId", "noteId", "reaction") VALUES ('9r1', '9bo', '9n1', ':bell:');
COMMIT;
-- Another reaction: the old one goes, the new one comes.
START TRANSACTION;
DELETE FROM "note_reaction" WHERE "id" IN ('9r1');
INSERT INTO "note_reaction"("id", "userId", "noteId", "reaction") VALUES ('9r2', '9bo', '9n1', ':tada:');
COMMIT;
INSERT INTO "note"("id", "replyId", "renoteId", "text", "userId", "visibility") VALUES ('9n2', '9n1', DEFAULT, 'An answer', '9cleo', 'home');
INSERT INTO "note"("id", "replyId", "renoteId", "text", "userId", "visibility") VALUES ('9n3', DEFAULT, '9n1', NULL, '9bo', 'public');
INSERT INTO "follow_request"("id", "followeeId", "followerId") VALUES ('9q1', '9ada', '9cleo');
INSERT INTO "following"("id", "followeeId", "followerId") VALUES ('9f1', '9bo', '9ada');
INSERT INTO "channel_following"("id", "followeeId", "followerId") VALUES ('9h1', '9channel', '9bo');
INSERT INTO "poll_vote"("id", "userId", "noteId", "choice") VALUES ('9v1', '9cleo', '9n1', 2);
-- A direct answer, and one to all.
INSERT INTO "note"("id", "replyId", "renoteId", "text", "userId", "visibility") VALUES ('9n4', '9n1', DEFAULT, 'For your eyes only', '9bo', 'specified');
INSERT INTO "note"("id", "replyId", "renoteId", "text", "userId", "visibility") VALUES ('9n5', '9n1', DEFAULT, 'For all to see', '9bo', 'public');
