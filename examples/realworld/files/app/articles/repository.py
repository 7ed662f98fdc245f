{% extends "repository.jinja" %}
{% block queries %}
"""How articles are found and stored."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

{% if cookiecutter.orm == 'sqlmodel' %}
from sqlalchemy import ColumnElement, delete, exists, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import defer, joinedload, selectinload
from sqlmodel import col, select
{% else %}
from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import defer, joinedload, selectinload
{% endif %}

from app.articles.models import Article, Favorite, Tag
from app.articles.schemas import ArticleQuery
from app.conduit import Twenty
from app.db.base import related
from app.db.repository import ReadRepository, Repository
from app.profiles.models import Follow
from app.profiles.repository import is_followed
from app.users.models import User


class Seen(NamedTuple):
    """An article, as who is asking sees it."""

    article: Article
    favorited: bool
    following: bool


class ArticleReadRepository(ReadRepository[Article]):
    """Reads articles with their authors and tags, as a viewer sees them."""

    model = Article

    async def find(self, slug: str, viewer_id: int | None) -> Seen | None:
        """Return an article, by one statement."""
        query = _seen_by(viewer_id).options(joinedload(related(Article.tags)))
        result = await self.session.execute(query.where(col(Article.slug) == slug))
        row = result.unique().one_or_none()
        return Seen(*row) if row else None

    async def find_id(self, slug: str) -> int | None:
        """Return the id of an article."""
        query = select(Article.id).where(col(Article.slug) == slug)
        result = await self.session.scalars(query)
        return result.one_or_none()

    async def search(
        self,
        query: ArticleQuery,
        viewer_id: int | None,
    ) -> tuple[list[Seen], int]:
        """Return a page of the articles that pass all filters, and how many do."""
        conditions: list[ColumnElement[bool]] = []
        if query.tag is not None:
            conditions.append(related(Article.tags).any(col(Tag.name) == query.tag))
        if query.author is not None:
            is_author = col(User.username) == query.author
            conditions.append(related(Article.author).has(is_author))
        if query.favorited is not None:
            liked = select(Favorite.article_id).join(User)
            liked = liked.where(col(User.username) == query.favorited)
            conditions.append(col(Article.id).in_(liked))
        return await self._page(conditions, query, viewer_id)

    async def feed(self, paging: Twenty, viewer_id: int) -> tuple[list[Seen], int]:
        """Return a page of the articles by those whom the viewer follows, and all."""
        is_follower = col(Follow.follower_id) == viewer_id
        followed = select(Follow.followed_id).where(is_follower)
        conditions = [col(Article.author_id).in_(followed)]
        return await self._page(conditions, paging, viewer_id)

    async def _page(
        self,
        conditions: Sequence[ColumnElement[bool]],
        paging: Twenty,
        viewer_id: int | None,
    ) -> tuple[list[Seen], int]:
        # Three statements for any number of articles: they, their tags, and the count.
        query = _seen_by(viewer_id).where(*conditions).order_by(col(Article.id).desc())
        query = query.options(
            selectinload(related(Article.tags)),
            defer(related(Article.body), raiseload=True),
        )
        query = query.limit(paging.limit).offset(paging.offset)
        rows = await self.session.execute(query)
        seen = [Seen(*row) for row in rows]
        count = select(func.count()).select_from(Article).where(*conditions)
        counted = await self.session.scalars(count)
        return seen, counted.one()


def _seen_by(viewer_id: int | None) -> Any:
    """Return the query for articles, their authors, and what they are to a viewer."""
    favorited = exists().where(
        col(Favorite.article_id) == Article.id, col(Favorite.user_id) == viewer_id
    )
    query = select(Article, favorited, is_followed(Article.author_id, viewer_id))
    return query.options(joinedload(related(Article.author)))


class ArticleRepository(Repository[Article]):
    """Writes articles."""

    model = Article

    async def count(self, article: Article, more: int) -> None:
        """Count favorites on from what others have committed."""
        counted = {"favorites_count": Article.favorites_count + more}
        # It stays: to be liked is no change of the text.
        await self.update(article, {**counted, "updated_at": Article.updated_at})


class FavoriteRepository(Repository[Favorite]):
    """Writes who likes what."""

    model = Favorite

    async def remove(self, article_id: int, user_id: int) -> bool:
        """Delete that a user likes an article; return whether it was so."""
        is_it = col(Favorite.article_id) == article_id
        statement = delete(Favorite).where(is_it, col(Favorite.user_id) == user_id)
        result: Any = await self.session.execute(statement)
        return bool(result.rowcount)


class TagReadRepository(ReadRepository[Tag]):
    """Reads tags."""

    model = Tag

    async def names(self) -> Sequence[str]:
        """Return the names of all tags."""
        result = await self.session.scalars(select(Tag.name).order_by(Tag.name))
        return result.all()


class TagRepository(Repository[Tag]):
    """Writes tags."""

    model = Tag

    async def get_or_create_all(self, names: Iterable[str]) -> list[Tag]:
        """Return the tags with these names, made where there were none."""
        # Of two transactions that make the same tag, one waits and uses the other's.
        # Sorted names keep them from waiting for each other.
        wanted = sorted({*names})
        if not wanted:
            return []
        dialect = self.session.get_bind().dialect.name
        insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        statement = insert(Tag).values([{"name": name} for name in wanted])
        await self.session.execute(statement.on_conflict_do_nothing())
        is_wanted, by_name = col(Tag.name).in_(wanted), [col(Tag.name)]
        return [*await self.list(is_wanted, order_by=by_name, limit=len(wanted))]
{% endblock %}
