"""The seed guide's FastAPI endpoints with Belfry beside them: they write their tables, and that is all.

    pip install fastapi uvicorn asyncpg
    DATABASE_URL=postgres://… uvicorn --app-dir examples/fastapi app:app --port 5001
"""

import os
from typing import AsyncIterator

import asyncpg
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel

app = FastAPI()


@app.on_event("startup")
async def open_pool() -> None:
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=5)


@app.on_event("shutdown")
async def close_pool() -> None:
    await app.state.pool.close()


async def get_db() -> AsyncIterator[asyncpg.Connection]:
    async with app.state.pool.acquire() as connection, connection.transaction():
        yield connection


async def get_current_user(x_user: int = Header()) -> int:
    """Stands for the application's own sign-in."""
    return x_user


class Comment(BaseModel):
    content: str


@app.post("/posts/{post_id}/like")
async def like_post(post_id: int, user_id: int = Depends(get_current_user), db=Depends(get_db)):
    """Toggles, as the seed guide's endpoint does."""
    gone = await db.fetch(
        "delete from public.likes where user_id = $1 and post_id = $2 returning 1", user_id, post_id
    )
    if not gone:
        await db.execute("insert into public.likes (user_id, post_id) values ($1, $2)", user_id, post_id)
    likes_count = await db.fetchval("select count(*) from public.likes where post_id = $1", post_id)
    return {"success": True, "liked": not gone, "likes_count": likes_count}


@app.post("/posts/{post_id}/comment")
async def add_comment(post_id: int, comment: Comment, user_id: int = Depends(get_current_user), db=Depends(get_db)):
    comment_id = await db.fetchval(
        "insert into public.comments (post_id, user_id, content) values ($1, $2, $3) returning id",
        post_id,
        user_id,
        comment.content,
    )
    return {"success": True, "comment": {"id": comment_id, "content": comment.content}}


@app.post("/users/follow/{other_id}")
async def follow_user(other_id: int, user_id: int = Depends(get_current_user), db=Depends(get_db)):
    await db.execute(
        "insert into public.follows (follower_id, followed_id) values ($1, $2) on conflict do nothing", user_id, other_id
    )
    return {"success": True}
