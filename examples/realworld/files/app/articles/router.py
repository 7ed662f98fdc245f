{% extends "async.jinja" %}
{% block code %}
"""The articles' endpoints."""

from typing import Annotated

from fastapi import Query

from app.articles import queries, service
from app.articles.repository import ArticleReadRepository, TagReadRepository
from app.articles.schemas import (
    ArticleCreate,
    ArticleQuery,
    ArticleResponse,
    ArticlesResponse,
    ArticleUpdate,
    TagsResponse,
)
from app.conduit import Embedded, Twenty
from app.dependencies import ReadDep, SnapshotDep, WriteDep
from app.problems import problem_responses
from app.routing import Router
from app.schemas import Text
from app.users.tokens import UserIdDep, UserIdIfAnyDep

router = Router(tags=["articles"])


@router.get("/articles", responses=problem_responses(401))
async def list_articles(
    viewer_id: UserIdIfAnyDep,
    db: SnapshotDep,
    query: Annotated[ArticleQuery, Query()],
) -> ArticlesResponse:
    """List articles, the newest first."""
    found = await ArticleReadRepository(db).search(query, viewer_id)
    return ArticlesResponse.of(*found)


@router.get("/articles/feed", responses=problem_responses(401))
async def show_feed(
    user_id: UserIdDep,
    db: SnapshotDep,
    paging: Annotated[Twenty, Query()],
) -> ArticlesResponse:
    """List the articles of those whom one follows, the newest first."""
    found = await ArticleReadRepository(db).feed(paging, user_id)
    return ArticlesResponse.of(*found)


@router.get("/articles/{slug}", responses=problem_responses(401, 404))
async def show_article(
    viewer_id: UserIdIfAnyDep,
    db: ReadDep,
    slug: Text,
) -> ArticleResponse:
    """Show an article."""
    return ArticleResponse.of(await queries.get_article(db, slug, viewer_id))


@router.post("/articles", status_code=201, responses=problem_responses(400, 401))
async def create_article(
    user_id: UserIdDep,
    db: WriteDep,
    article: Annotated[ArticleCreate, Embedded],
) -> ArticleResponse:
    """Write an article."""
    return ArticleResponse.of(await service.create(db, user_id, article))


@router.put("/articles/{slug}", responses=problem_responses(400, 401, 403, 404))
async def update_article(
    user_id: UserIdDep,
    db: WriteDep,
    slug: Text,
    article: Annotated[ArticleUpdate, Embedded],
) -> ArticleResponse:
    """Change one's own article."""
    return ArticleResponse.of(await service.update(db, user_id, slug, article))


@router.delete(
    "/articles/{slug}",
    status_code=204,
    responses=problem_responses(401, 403, 404),
)
async def delete_article(user_id: UserIdDep, db: WriteDep, slug: Text) -> None:
    """Delete one's own article."""
    await service.delete(db, user_id, slug)


@router.post("/articles/{slug}/favorite", responses=problem_responses(401, 404))
async def favorite(user_id: UserIdDep, db: WriteDep, slug: Text) -> ArticleResponse:
    """Like an article."""
    return ArticleResponse.of(await service.favorite(db, user_id, slug))


@router.delete("/articles/{slug}/favorite", responses=problem_responses(401, 404))
async def unfavorite(user_id: UserIdDep, db: WriteDep, slug: Text) -> ArticleResponse:
    """Like an article no more."""
    return ArticleResponse.of(await service.unfavorite(db, user_id, slug))


@router.get("/tags", responses=problem_responses())
async def list_tags(db: ReadDep) -> TagsResponse:
    """List all tags."""
    return TagsResponse(tags=[*await TagReadRepository(db).names()])
{% endblock %}
