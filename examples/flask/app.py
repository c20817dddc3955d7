"""The seed guide's Flask endpoints with Belfry beside them: they write their tables, and that is all.

What went away: notification_manager, its try/except, the query for the post's author, the check for oneself, the count
for the broadcast, eventlet, Redis. Who is told what stands in examples/belfry.yaml.

    pip install flask "psycopg[binary]"
    DATABASE_URL=postgres://… flask --app examples/flask/app run -p 5000
"""

import os

import psycopg
from flask import Flask, jsonify, request

app = Flask(__name__)


def connect() -> psycopg.Connection:
    # A real application takes it from a pool. Leaving the `with` block commits.
    return psycopg.connect(os.environ["DATABASE_URL"])


def current_user() -> int:
    """Stands for the application's own sign-in."""
    return int(request.headers["X-User"])


@app.post("/api/posts/<int:post_id>/like")
def like_post(post_id: int):
    """Toggles, as the seed guide's endpoint does."""
    user_id = current_user()
    with connect() as db:
        liked = (
            db.execute("delete from public.likes where user_id = %s and post_id = %s", (user_id, post_id)).rowcount == 0
        )
        if liked:
            db.execute("insert into public.likes (user_id, post_id) values (%s, %s)", (user_id, post_id))
        (likes_count,) = db.execute("select count(*) from public.likes where post_id = %s", (post_id,)).fetchone()
    return jsonify(success=True, liked=liked, likes_count=likes_count)


@app.post("/api/posts/<int:post_id>/comment")
def add_comment(post_id: int):
    content = request.get_json()["content"]
    with connect() as db:
        (comment_id,) = db.execute(
            "insert into public.comments (post_id, user_id, content) values (%s, %s, %s) returning id",
            (post_id, current_user(), content),
        ).fetchone()
    return jsonify(success=True, comment={"id": comment_id, "content": content})


@app.post("/api/users/follow/<int:user_id>")
def follow_user(user_id: int):
    with connect() as db:
        db.execute(
            "insert into public.follows (follower_id, followed_id) values (%s, %s) on conflict do nothing",
            (current_user(), user_id),
        )
    return jsonify(success=True)


@app.post("/api/users/<int:user_id>/hire")
def hire(user_id: int):
    """What no table tells: a notification of one's own, in the same transaction as the rest of the work."""
    with connect() as db:
        db.execute(
            "select belfry.notify(%s, 'job_application', 'You have the job', jsonb_build_object('by', %s::text), %s)",
            (str(user_id), str(current_user()), str(current_user())),
        )
    return jsonify(success=True)
