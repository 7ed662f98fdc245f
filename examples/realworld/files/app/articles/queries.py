{% extends "async.jinja" %}
{% block code %}
"""Reading articles: what takes a `ReadSession`."""

from app.articles.models import Article
from app.articles.repository import ArticleReadRepository, Seen
from app.db.session import ReadSession
from app.problems import ForbiddenError, NotFoundError


async def get_article(session: ReadSession, slug: str, viewer_id: int | None) -> Seen:
    """Return an article as a viewer sees it, or raise `NotFoundError`."""
    seen = await ArticleReadRepository(session).find(slug, viewer_id)
    if seen is None:
        raise NotFoundError("There is no such article.")
    return seen


async def get_article_id(session: ReadSession, slug: str) -> int:
    """Return the id of an article, or raise `NotFoundError`."""
    article_id = await ArticleReadRepository(session).find_id(slug)
    if article_id is None:
        raise NotFoundError("There is no such article.")
    return article_id


def own(seen: Seen, user_id: int) -> Article:
    """Return the article, or raise `ForbiddenError` if it is another author's."""
    if seen.article.author_id != user_id:
        raise ForbiddenError("The article is another author's.")
    return seen.article
{% endblock %}
