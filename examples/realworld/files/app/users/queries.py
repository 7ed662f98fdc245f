{% extends "async.jinja" %}
{% block code %}
"""Reading users: what takes a `ReadSession`."""

from app.db.session import ReadSession
from app.problems import UnauthorizedError
from app.users.models import User
from app.users.repository import UserReadRepository


async def get_by_email(session: ReadSession, email: str) -> User | None:
    """Return the user with this e-mail address, if there is one."""
    return await UserReadRepository(session).get_by_email(email)


async def get_user(session: ReadSession, user_id: int) -> User:
    """Return who is asking, or raise `UnauthorizedError`."""
    return known(await UserReadRepository(session).get(user_id))


def known(user: User | None) -> User:
    """Return `user`, or raise `UnauthorizedError` if there is none."""
    if user is None:
        raise UnauthorizedError("There is no such user any more.")
    return user
{% endblock %}
