"""What clients get."""

from typing import Self

from app.conduit import Shown
from app.profiles.repository import Profile


class ProfileShown(Shown):
    """A user, as others see it."""

    username: str
    bio: str | None
    image: str | None
    following: bool


class ProfileResponse(Shown):
    """A profile."""

    profile: ProfileShown

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return what a client gets."""
        user, following = profile
        return cls(profile=ProfileShown.of_model(user, following=following))
