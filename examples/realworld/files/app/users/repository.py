{% extends "repository.jinja" %}
{% block queries %}
"""How users are found and stored."""

{% if cookiecutter.orm == 'sqlmodel' %}
from sqlmodel import select
{% else %}
from sqlalchemy import select
{% endif %}

from app.db.repository import ReadRepository, Repository
from app.users.models import User


class UserReadRepository(ReadRepository[User]):
    """Reads users."""

    model = User

    async def get_by_email(self, email: str) -> User | None:
        """Return the user with this e-mail address, which is in lower case."""
        result = await self.session.scalars(select(User).where(User.email == email))
        return result.one_or_none()


class UserRepository(Repository[User]):
    """Reads and writes users."""

    model = User
{% endblock %}
