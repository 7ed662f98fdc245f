{% extends "repository.jinja" %}
{% block queries %}
"""How profiles are found, and who follows whom is stored."""

from typing import Any, NamedTuple

{% if cookiecutter.orm == 'sqlmodel' %}
from sqlalchemy import Exists, delete, exists
from sqlmodel import col, select
{% else %}
from sqlalchemy import Exists, delete, exists, select
{% endif %}

from app.db.repository import ReadRepository, Repository
from app.profiles.models import Follow
from app.users.models import User


class Profile(NamedTuple):
    """A user, and whether who is asking follows this user."""

    user: User
    following: bool


def is_followed(user_id: Any, viewer_id: int | None) -> Exists:
    """Return whether the user of a column is followed: by nobody, without a viewer."""
    return exists().where(
        col(Follow.followed_id) == user_id, col(Follow.follower_id) == viewer_id
    )


class ProfileReadRepository(ReadRepository[User]):
    """Reads users, as others see them."""

    model = User

    async def find(self, username: str, viewer_id: int | None) -> Profile | None:
        """Return a profile, by one statement."""
        query = select(User, is_followed(User.id, viewer_id))
        result = await self.session.execute(query.where(User.username == username))
        row = result.one_or_none()
        return Profile(*row) if row else None


class FollowRepository(Repository[Follow]):
    """Writes who follows whom."""

    model = Follow

    async def remove(self, follower_id: int, followed_id: int) -> None:
        """Delete that a user follows another one, if it is so."""
        is_it = col(Follow.follower_id) == follower_id
        statement = delete(Follow).where(is_it, col(Follow.followed_id) == followed_id)
        await self.session.execute(statement)
{% endblock %}
