{% extends "async.jinja" %}
{% block code %}
"""Reading comments: what takes a `ReadSession`."""

from collections.abc import Sequence

from app.articles.queries import get_article_id
from app.comments.repository import CommentReadRepository, SeenComment
from app.db.session import ReadSession


async def list_comments(
    session: ReadSession,
    slug: str,
    viewer_id: int | None,
) -> Sequence[SeenComment]:
    """Return all comments on an article, or raise `NotFoundError`."""
    article_id = await get_article_id(session, slug)
    return await CommentReadRepository(session).of_article(article_id, viewer_id)
{% endblock %}
