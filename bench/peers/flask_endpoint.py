"""The endpoint that users come from: Flask-SocketIO on eventlet, which writes the like, looks up the author, notifies
them and tells everybody the new count, all within the request.

Usage: flask_endpoint.py PORT DATABASE_URL. The time of the commit goes with the notification, so that what is measured begins there.
"""

import eventlet

eventlet.monkey_patch()

import sys
import time

import psycopg2
from eventlet import wsgi
from flask import Flask, jsonify, request
from flask_socketio import SocketIO, join_room
from psycopg2.extensions import set_wait_callback, POLL_OK, POLL_READ, POLL_WRITE
from eventlet.hubs import trampoline

port, url = int(sys.argv[1]), sys.argv[2]


def wait(connection):
    """Lets other requests run while the database is asked, as psycopg2 does under eventlet in production."""
    while True:
        state = connection.poll()
        if state == POLL_OK:
            return
        if state == POLL_READ:
            trampoline(connection.fileno(), read=True)
        elif state == POLL_WRITE:
            trampoline(connection.fileno(), write=True)


set_wait_callback(wait)

app = Flask(__name__)
socketio = SocketIO(app, async_mode="eventlet", cors_allowed_origins="*")
idle = []


@socketio.on("connect")
def connect(auth):
    join_room("user_" + str(auth["user"]))


@app.route("/status")
def status():
    return jsonify({"status": "ok"})


@app.route("/api/posts/<int:post_id>/like", methods=["POST"])
def like_post(post_id):
    user_id = request.get_json()["user_id"]
    connection = idle.pop() if idle else psycopg2.connect(url)
    cursor = connection.cursor()
    cursor.execute("insert into likes (user_id, post_id) values (%s, %s)", (user_id, post_id))
    connection.commit()
    committed_at = time.time() * 1000
    cursor.execute("select user_id from posts where id = %s", (post_id,))
    author = cursor.fetchone()[0]
    cursor.execute("select count(*) from likes where post_id = %s", (post_id,))
    likes_count = cursor.fetchone()[0]
    connection.commit()
    idle.append(connection)
    if author != user_id:
        socketio.emit(
            "notification",
            {
                "type": "like",
                "post_id": str(post_id),
                "user_id": str(user_id),
                "message": "Someone liked your post",
                "committed_at": committed_at,
            },
            to="user_" + str(author),
        )
    socketio.emit("like_update", {"post_id": str(post_id), "likes_count": likes_count, "user_id": str(user_id)})
    return jsonify({"success": True, "liked": True, "likes_count": likes_count})


# Its own limit is 1,024 sockets.
wsgi.server(eventlet.listen(("127.0.0.1", port)), app, max_size=4096, log_output=False)
