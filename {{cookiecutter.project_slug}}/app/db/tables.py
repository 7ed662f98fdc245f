"""What holds for every table, on each database."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Integer,
    Interval,
    MetaData,
    Table,
    event,
    text,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import NULLTYPE, TypeDecorator, TypeEngine

# Names that the database would choose differ from one to the next; migrations need
# to know them.
NAMING_CONVENTION = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite counts up in INTEGER PRIMARY KEY columns only; they have 64 bits as well.
BigId = BigInteger().with_variant(Integer, "sqlite")

# For statements that the app does not write. SQLite knows no now().
CURRENT_TIMESTAMP = text("CURRENT_TIMESTAMP")


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC, to the microsecond. SQLite, which has no time zones, stores UTC.

    A time without a zone is refused: nobody knows when that is.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def coerce_compared_value(
        self, _operator: OperatorType | None, value: Any
    ) -> TypeEngine[Any]:
        """Return the type of what a time is compared with, or what is added to it."""
        return Interval() if isinstance(value, timedelta) else self

    def process_bind_param(
        self, value: datetime | None, _dialect: Dialect
    ) -> datetime | None:
        """Return the time in UTC."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(
                f"{value!r} has no time zone: use utc_now() of app.db.tables, or "
                "UTCTime of app.schemas for what a client sends"
            )
        return value.astimezone(UTC)

    def process_result_value(
        self, value: datetime | None, _dialect: Dialect
    ) -> datetime | None:
        """Return the time in UTC, whatever the driver makes of it."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def statement_time(context: Any) -> datetime:
    """Return the time of a statement: the same for all its columns, as now() is."""
    time: datetime = vars(context).setdefault("utc_now", utc_now())
    return time


def set_defaults(metadata: MetaData) -> None:
    """Make what is right on both databases the default for all tables of `metadata`."""
    metadata.naming_convention = NAMING_CONVENTION

    @event.listens_for(Column, "before_parent_attach")
    def choose_type(column: Column[Any], table: Any) -> None:
        if getattr(table, "metadata", None) is not metadata:
            return
        # A plain `int` says no more than that; without a type, a foreign key takes
        # its target's.
        if column.foreign_keys and type(column.type) is Integer:
            column.type = NULLTYPE
        elif type(column.type) is DateTime:
            column.type = UTCDateTime()

    @event.listens_for(Table, "after_parent_attach")
    def never_reuse_ids(table: Table, parent: MetaData) -> None:
        # Or SQLite would give the id of a deleted row to the next one.
        if parent is metadata:
            table.kwargs["sqlite_autoincrement"] = True

    @event.listens_for(Mapper, "instrument_class")
    def return_what_is_computed(mapper: Mapper[Any], _model: type) -> None:
        # An UPDATE, too, returns what the database computes: reading it later would
        # need a statement of its own.
        if getattr(mapper.local_table, "metadata", None) is metadata:
            mapper.eager_defaults = True
