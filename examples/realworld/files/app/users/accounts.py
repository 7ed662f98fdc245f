"""Register, sign in, change: no session is open while a password is hashed."""

from typing import Annotated

from fastapi import Request

from app.conduit import Embedded
from app.dependencies import get_database
from app.problems import UnauthorizedError, problem_responses
from app.routing import Router
from app.run import run_read, run_transaction
from app.users import passwords, queries, service
from app.users.models import User
from app.users.schemas import (
    Credentials,
    Registration,
    UserResponse,
    UserShown,
    UserUpdate,
)
from app.users.tokens import UserIdDep

router = Router(tags=["users"])


def signed_in(request: Request, user: User) -> UserResponse:
    """Return a user, with a new token."""
    token = request.app.state.tokens.issue(user.id)
    return UserResponse(user=UserShown.of_model(user, token=token))


@router.post("/users", status_code=201, responses=problem_responses(400, 409))
async def register(
    request: Request, user: Annotated[Registration, Embedded]
) -> UserResponse:
    """Register."""
    password_hash = await passwords.hash_password(user.password)
    database = get_database(request)
    registered = await run_transaction(database, service.register, user, password_hash)
    return signed_in(request, registered)


@router.post("/users/login", responses=problem_responses(400, 401))
async def sign_in(
    request: Request, user: Annotated[Credentials, Embedded]
) -> UserResponse:
    """Sign in."""
    found = await run_read(get_database(request), queries.get_by_email, user.email)
    password_hash = found.password_hash if found else None
    if not await passwords.verify(user.password, password_hash) or found is None:
        raise UnauthorizedError("email or password is invalid")
    return signed_in(request, found)


@router.put("/user", responses=problem_responses(400, 401, 409))
async def update_me(
    request: Request, user_id: UserIdDep, user: Annotated[UserUpdate, Embedded]
) -> UserResponse:
    """Change who is asking."""
    changes = user.model_dump(exclude_unset=True)
    if password := changes.pop("password", None):
        changes["password_hash"] = await passwords.hash_password(password)
    database = get_database(request)
    changed = await run_transaction(database, service.update, user_id, changes)
    return signed_in(request, changed)
