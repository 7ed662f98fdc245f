"""What all of Conduit's bodies have in common: camelCase, and how times look."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Body as FromBody
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from app.schemas import Body, Paging

# A body is in an object that says what it is: {"user": {…}}.
Embedded = FromBody(embed=True)


def _to_milliseconds(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# JavaScript's toISOString() has milliseconds, even if there are none.
Time = Annotated[datetime, PlainSerializer(_to_milliseconds)]


class Sent(Body):
    """What a client sends; its forms send more than there is to be changed."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)


class Shown(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    @classmethod
    def of_model(cls, model: object, **more: Any) -> Self:
        """Return what has the attributes of a model, and more."""
        names = cls.model_fields.keys() - more.keys()
        return cls(**{name: getattr(model, name) for name in names}, **more)


class Twenty(Paging):
    """Which part of a list a client asks for, by default twenty."""

    limit: int = Field(default=20, ge=1, le=100)
