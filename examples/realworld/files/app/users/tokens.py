"""Tokens, signed by this service: they say which user is asking."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from app.config import Settings
from app.problems import UnauthorizedError

# One algorithm, never the one that a token asks for.
ALGORITHM = "HS256"
KEY_LENGTH = 32


class Tokens:
    """Issues tokens and reads them."""

    def __init__(self, settings: Settings) -> None:
        """Take the key from the settings; outside of production, make one if needed."""
        self._key = settings.secret_key.get_secret_value()
        self._lifetime = timedelta(seconds=settings.token_lifetime)
        if len(self._key) < KEY_LENGTH:
            if settings.environment == "production":
                raise SystemExit("Wrong settings. SECRET_KEY needs 32 characters.")
            self._key = secrets.token_urlsafe(KEY_LENGTH)

    def issue(self, user_id: int) -> str:
        """Return a token for a user."""
        claims = {"sub": str(user_id), "exp": datetime.now(UTC) + self._lifetime}
        return jwt.encode(claims, self._key, ALGORITHM)

    def user_id(self, token: str) -> int:
        """Return the user's id in the token, or raise `UnauthorizedError`."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                options={"require": ["sub", "exp"]},
            )
        except jwt.InvalidTokenError as error:
            raise UnauthorizedError("The token is wrong, or has expired.") from error
        return int(claims["sub"])


# Not `Bearer`, which FastAPI knows: Conduit's clients send `Authorization: Token …`.
_authorization = APIKeyHeader(
    name="Authorization", scheme_name="Token", auto_error=False
)


async def get_user_id_if_any(
    request: Request, sent: Annotated[str | None, Depends(_authorization)]
) -> int | None:
    """Return the user's id, None without a token; a wrong one is an error."""
    if sent is None:
        return None
    scheme, _, token = sent.partition(" ")
    if scheme.lower() != "token":
        raise UnauthorizedError("Send `Authorization: Token …`.")
    tokens: Tokens = request.app.state.tokens
    return tokens.user_id(token)


async def get_user_id(
    user_id: Annotated[int | None, Depends(get_user_id_if_any)],
) -> int:
    """Return the user's id in the token; the database is not asked."""
    if user_id is None:
        raise UnauthorizedError("Sign in first.")
    return user_id


UserIdDep = Annotated[int, Depends(get_user_id)]
UserIdIfAnyDep = Annotated[int | None, Depends(get_user_id_if_any)]
