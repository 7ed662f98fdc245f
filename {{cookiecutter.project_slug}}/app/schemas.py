"""Schemas and field types that all features share."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from fastapi import Path
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

ItemT = TypeVar("ItemT")

MAX_ID = 2**63 - 1
# Of a body: each is an error of its own.
MOST_UNKNOWN_FIELDS = 20


def printable(text: str) -> str:
    """Return `text`, if it has printable characters only."""
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


def encodable(text: str) -> str:
    """Return `text`, if it can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text


def _plain_digits(value: Any) -> Any:
    # Otherwise "+1", "1_0" and "1.0" would be paths of the same thing.
    if isinstance(value, str) and not value.isdecimal():
        raise ValueError("must consist of digits")
    return value


def _to_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999, in UTC") from None


# PostgreSQL cannot store NUL in text; SQLite can, but then cuts it off. A pattern makes
# pydantic refuse lone surrogates too. Validators go last, or constraints would count
# "items": `Annotated[Text, Field(min_length=1), AfterValidator(printable)]`.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
# A time that names its zone; it is shown as UTC, as it is when it is read again.
UTCTime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID), BeforeValidator(_plain_digits)]


class Body(BaseModel):
    """What a client sends: unknown fields are refused rather than ignored.

    A subclass ignores them with `model_config = ConfigDict(extra="ignore")`.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def refuse_many_unknown_fields(cls, data: Any) -> Any:
        """Raise one error for very many fields, not one for each."""
        most = len(cls.model_fields) + MOST_UNKNOWN_FIELDS
        is_strict = cls.model_config.get("extra") == "forbid"
        if is_strict and isinstance(data, dict) and len(data) > most:
            raise ValueError(f"must have at most {most} fields")
        return data


class Paging(BaseModel):
    """Which part of a list a client asks for."""

    limit: int = Field(default=50, ge=1, le=100)
    offset: int = Field(default=0, ge=0, le=MAX_ID)


class Page(BaseModel, Generic[ItemT]):
    """A part of a list; `has_more` costs no COUNT."""

    items: list[ItemT]
    limit: int
    offset: int
    has_more: bool

    @classmethod
    def of(cls, rows: Sequence[object], paging: Paging) -> Self:
        """Make a page of rows that were read with a limit of one more."""
        page = {
            "items": rows[: paging.limit],
            "limit": paging.limit,
            "offset": paging.offset,
            "has_more": len(rows) > paging.limit,
        }
        return cls.model_validate(page, from_attributes=True)


class Problem(BaseModel):
    """An error as RFC 9457 has it, `application/problem+json`."""

    type: str = Field(description="What kind of error: a name, or `about:blank`.")
    title: str = Field(description="The name of the HTTP status.")
    status: int
    detail: str = Field(description="What went wrong, in a sentence.")
    instance: str = Field(description="The path of the request.")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="Of a validation error: `loc`, `msg`, `type` of each."
    )
