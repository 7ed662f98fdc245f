{% extends "async.jinja" %}
{% block code %}
"""The user who is asking."""

from fastapi import Request

from app.dependencies import ReadDep
from app.problems import problem_responses
from app.routing import Router
from app.users import queries
from app.users.accounts import signed_in
from app.users.schemas import UserResponse
from app.users.tokens import UserIdDep

router = Router(tags=["users"])


@router.get("/user", responses=problem_responses(401))
async def show_me(request: Request, user_id: UserIdDep, db: ReadDep) -> UserResponse:
    """Show who is asking."""
    return signed_in(request, await queries.get_user(db, user_id))
{% endblock %}
