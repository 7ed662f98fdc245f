{% extends "async.jinja" %}
{% block code %}
"""Reading profiles: what takes a `ReadSession`."""

from app.db.session import ReadSession
from app.problems import NotFoundError
from app.profiles.repository import Profile, ProfileReadRepository


async def get_profile(
    session: ReadSession,
    username: str,
    viewer_id: int | None,
) -> Profile:
    """Return a profile as a viewer sees it, or raise `NotFoundError`."""
    profile = await ProfileReadRepository(session).find(username, viewer_id)
    if profile is None:
        raise NotFoundError("There is no such profile.")
    return profile
{% endblock %}
