{% extends "repository.jinja" %}
{% block queries %}
"""How comments are found and stored."""

from typing import NamedTuple

{% if cookiecutter.orm == 'sqlmodel' %}
from sqlalchemy.orm import joinedload
from sqlmodel import col, select
{% else %}
from sqlalchemy import select
from sqlalchemy.orm import joinedload
{% endif %}

from app.comments.models import Comment
from app.db.base import related
from app.db.repository import ReadRepository, Repository
from app.profiles.repository import is_followed


class SeenComment(NamedTuple):
    """A comment, and whether who is asking follows its author."""

    comment: Comment
    following: bool


class CommentReadRepository(ReadRepository[Comment]):
    """Reads comments with their authors, as a viewer sees them."""

    model = Comment

    async def of_article(
        self,
        article_id: int,
        viewer_id: int | None,
    ) -> list[SeenComment]:
        """Return all comments on an article, the oldest first, by one statement."""
        query = select(Comment, is_followed(Comment.author_id, viewer_id))
        query = query.where(Comment.article_id == article_id).order_by(col(Comment.id))
        query = query.options(joinedload(related(Comment.author)))
        rows = await self.session.execute(query)
        return [SeenComment(*row) for row in rows]


class CommentRepository(Repository[Comment]):
    """Writes comments."""

    model = Comment
{% endblock %}
