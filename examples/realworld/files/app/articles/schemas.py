"""What clients send and get."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field

from app.articles.models import Article
from app.conduit import Sent, Shown, Time, Twenty
from app.profiles.schemas import ProfileShown
from app.schemas import Text

Title = Annotated[Text, Field(min_length=1, max_length=200)]
Description = Annotated[Text, Field(min_length=1, max_length=1_000)]
Content = Annotated[Text, Field(min_length=1, max_length=100_000)]
TagName = Annotated[Text, Field(min_length=1, max_length=50)]


class ArticleCreate(Sent):
    """A new article."""

    title: Title
    description: Description
    body: Content
    tag_list: list[TagName] = Field(default_factory=list, max_length=20)


class ArticleUpdate(Sent):
    """What to change: a field that is left out stays as it is."""

    title: Title = Field(default_factory=str)
    description: Description = Field(default_factory=str)
    body: Content = Field(default_factory=str)


class ArticleQuery(Twenty):
    """Which articles to list: those that pass every filter that is given."""

    tag: Text | None = Field(default=None, max_length=50)
    author: Text | None = Field(default=None, max_length=64)
    favorited: Text | None = Field(default=None, max_length=64)


class ArticleListed(Shown):
    """An article in a list."""

    slug: str
    title: str
    description: str
    tag_list: list[str]
    created_at: Time
    updated_at: Time
    favorited: bool
    favorites_count: int
    author: ProfileShown

    @classmethod
    def of(cls, article: Article, favorited: bool, following: bool) -> Self:
        """Return an article as somebody sees it who likes it, or its author."""
        return cls.of_model(
            article,
            tag_list=[tag.name for tag in article.tags],
            favorited=favorited,
            author=ProfileShown.of_model(article.author, following=following),
        )


class ArticleShown(ArticleListed):
    """An article, with its text."""

    body: str


class ArticleResponse(Shown):
    """An article."""

    article: ArticleShown

    @classmethod
    def of(cls, seen: tuple[Article, bool, bool]) -> Self:
        """Return what a client gets."""
        return cls(article=ArticleShown.of(*seen))


class ArticlesResponse(Shown):
    """A page of articles, and how many there are on all pages."""

    articles: list[ArticleListed]
    articles_count: int

    @classmethod
    def of(cls, seen: Iterable[tuple[Article, bool, bool]], count: int) -> Self:
        """Return what a client gets."""
        articles = [ArticleListed.of(*each) for each in seen]
        return cls(articles=articles, articles_count=count)


class TagsResponse(Shown):
    """All tags."""

    tags: list[str]
