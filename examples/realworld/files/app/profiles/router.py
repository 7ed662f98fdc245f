{% extends "async.jinja" %}
{% block code %}
"""The profiles' endpoints."""

from app.dependencies import ReadDep, WriteDep
from app.problems import problem_responses
from app.profiles import queries, service
from app.profiles.schemas import ProfileResponse
from app.routing import Router
from app.schemas import Text
from app.users.tokens import UserIdDep, UserIdIfAnyDep

router = Router(prefix="/profiles/{username}", tags=["profiles"])


@router.get("", responses=problem_responses(401, 404))
async def show_profile(
    viewer_id: UserIdIfAnyDep,
    db: ReadDep,
    username: Text,
) -> ProfileResponse:
    """Show a user."""
    return ProfileResponse.of(await queries.get_profile(db, username, viewer_id))


@router.post("/follow", responses=problem_responses(401, 404))
async def follow(user_id: UserIdDep, db: WriteDep, username: Text) -> ProfileResponse:
    """Follow a user."""
    return ProfileResponse.of(await service.follow(db, user_id, username))


@router.delete("/follow", responses=problem_responses(401, 404))
async def unfollow(
    user_id: UserIdDep,
    db: WriteDep,
    username: Text,
) -> ProfileResponse:
    """Follow a user no more."""
    return ProfileResponse.of(await service.unfollow(db, user_id, username))
{% endblock %}
