"""What clients send and get."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field

from app.comments.models import Comment
from app.conduit import Sent, Shown, Time
from app.profiles.schemas import ProfileShown
from app.schemas import Text


class CommentCreate(Sent):
    """A new comment."""

    body: Annotated[Text, Field(min_length=1, max_length=10_000)]


class CommentShown(Shown):
    """A comment."""

    id: int
    created_at: Time
    updated_at: Time
    body: str
    author: ProfileShown

    @classmethod
    def of(cls, comment: Comment, following: bool) -> Self:
        """Return a comment as somebody sees it who follows its author, or does not."""
        author = ProfileShown.of_model(comment.author, following=following)
        return cls.of_model(comment, author=author)


class CommentResponse(Shown):
    """A comment."""

    comment: CommentShown

    @classmethod
    def of(cls, seen: tuple[Comment, bool]) -> Self:
        """Return what a client gets."""
        return cls(comment=CommentShown.of(*seen))


class CommentsResponse(Shown):
    """All comments on an article."""

    comments: list[CommentShown]

    @classmethod
    def of(cls, seen: Iterable[tuple[Comment, bool]]) -> Self:
        """Return what a client gets."""
        return cls(comments=[CommentShown.of(*each) for each in seen])
