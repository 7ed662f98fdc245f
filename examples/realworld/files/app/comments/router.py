{% extends "async.jinja" %}
{% block code %}
"""The comments' endpoints."""

from typing import Annotated

from app.comments import queries, service
from app.comments.schemas import CommentCreate, CommentResponse, CommentsResponse
from app.conduit import Embedded
from app.dependencies import SnapshotDep, WriteDep
from app.problems import problem_responses
from app.routing import Router
from app.schemas import PathId, Text
from app.users.tokens import UserIdDep, UserIdIfAnyDep

router = Router(prefix="/articles/{slug}/comments", tags=["comments"])


@router.get("", responses=problem_responses(401, 404))
async def list_comments(
    viewer_id: UserIdIfAnyDep,
    db: SnapshotDep,
    slug: Text,
) -> CommentsResponse:
    """List the comments on an article, the oldest first."""
    return CommentsResponse.of(await queries.list_comments(db, slug, viewer_id))


@router.post("", responses=problem_responses(400, 401, 404))
async def add_comment(
    user_id: UserIdDep,
    db: WriteDep,
    slug: Text,
    comment: Annotated[CommentCreate, Embedded],
) -> CommentResponse:
    """Say something about an article."""
    return CommentResponse.of(await service.add(db, user_id, slug, comment))


@router.delete(
    "/{comment_id}",
    status_code=204,
    responses=problem_responses(401, 403, 404),
)
async def delete_comment(
    user_id: UserIdDep,
    db: WriteDep,
    slug: Text,
    comment_id: PathId,
) -> None:
    """Delete one's own comment."""
    await service.delete(db, user_id, slug, comment_id)
{% endblock %}
