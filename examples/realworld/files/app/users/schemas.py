"""What clients send and get."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from app.conduit import Sent, Shown
from app.schemas import Text, printable

Username = Annotated[
    Text, Field(min_length=1, max_length=64), AfterValidator(printable)
]
Email = Annotated[
    Text,
    StringConstraints(
        to_lower=True, max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$"
    ),
    AfterValidator(printable),
]
Password = Annotated[Text, Field(min_length=8, max_length=128, repr=False)]


class Registration(Sent):
    """A new user."""

    username: Username
    email: Email
    password: Password


class Credentials(Sent):
    """What somebody signs in with."""

    email: Email
    password: Annotated[Text, Field(max_length=128, repr=False)]


class UserUpdate(Sent):
    """What to change: a field that is left out stays as it is."""

    # A default_factory makes a field optional without showing a default; what was sent
    # is what `exclude_unset` leaves.
    username: Username = Field(default_factory=str)
    email: Email = Field(default_factory=str)
    password: Password = Field(default_factory=str)
    bio: Annotated[Text, Field(max_length=10_000)] | None = None
    image: Annotated[Text, Field(max_length=2_000)] | None = None


class UserShown(Shown):
    """A user, as only the user sees it."""

    username: str
    email: str
    bio: str | None
    image: str | None
    token: str


class UserResponse(Shown):
    """A user, and the token to send as `Authorization: Token …`."""

    user: UserShown
