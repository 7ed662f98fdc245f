"""What every table must have to behave alike on SQLite and PostgreSQL."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.db.base import metadata
from app.db.database import import_models
from app.db.tables import BigId, UTCDateTime, set_defaults

DIALECTS: dict[str, Dialect] = {
    "PostgreSQL": postgresql.dialect(),  # type: ignore[no-untyped-call]
    "SQLite": sqlite.dialect(),
}
# PostgreSQL cuts what is longer.
LONGEST_NAME = 63


def mistakes(metadata: MetaData) -> list[str]:
    """Return a line for each mistake, which says where it is and what to do."""
    return [
        f"{table}: {mistake}"
        for table in metadata.sorted_tables
        for find in (wrong_types, missing_indexes, reused_ids, wrong_names, local_times)
        for mistake in find(table)
    ]


def wrong_types(table: Table) -> Iterator[str]:
    for key in table.foreign_keys:
        for name, dialect in DIALECTS.items():
            own = key.parent.type.compile(dialect)
            target = key.column.type.compile(dialect)
            if own != target:
                yield (
                    f"{key.parent.name} is {own} on {name}, but {key.column} is "
                    f"{target}; give the foreign key that type, or none"
                )


def missing_indexes(table: Table) -> Iterator[str]:
    indexed = [
        [column.name for column in each.columns]
        for each in (*table.indexes, *table.constraints)
        if isinstance(each, Index | PrimaryKeyConstraint | UniqueConstraint)
    ]
    for key in table.foreign_key_constraints:
        names = [column.name for column in key.columns]
        if not any(set(names) == {*each[: len(names)]} for each in indexed):
            yield (
                f"the foreign key {', '.join(names)} has no index, so that deleting "
                "its target reads the whole table; add index=True"
            )


def reused_ids(table: Table) -> Iterator[str]:
    counting = table.autoincrement_column
    if counting is None:
        return
    if counting.type.compile(DIALECTS["SQLite"]) != "INTEGER":
        yield f"{counting.name} does not count up on SQLite; make it a BigId"
    elif not table.dialect_options["sqlite"]["autoincrement"]:
        yield "SQLite gives ids of deleted rows again; add sqlite_autoincrement=True"


def wrong_names(table: Table) -> Iterator[str]:
    parts: list[Any] = [*table.constraints, *table.indexes]
    for each in parts:
        columns = ", ".join(column.name for column in each.columns)
        kind = f"the {type(each).__name__} ({columns})"
        if not isinstance(each.name, str):
            if not isinstance(each, PrimaryKeyConstraint) or each.columns:
                yield f"{kind} has no name, which a migration needs; add name=…"
        elif len(each.name) > LONGEST_NAME:
            yield f"{kind} has a name of over {LONGEST_NAME} characters; add name=…"


def local_times(table: Table) -> Iterator[str]:
    for column in table.columns:
        if isinstance(column.type, DateTime):
            yield f"{column.name} has no time zone on SQLite; make it a UTCDateTime"


def test_the_models_make_no_mistake() -> None:
    import_models()
    assert "\n".join(mistakes(metadata)) == ""


def test_each_mistake_is_found() -> None:
    wrong = MetaData()
    Table("a", wrong, Column("id", BigInteger, primary_key=True))
    Table(
        "b",
        wrong,
        Column("id", Integer, primary_key=True),
        Column("a_id", Integer, ForeignKey("a.id")),
        Column("at", DateTime(timezone=True)),
        CheckConstraint("at > 0", name="x" * 64),
        sqlite_autoincrement=False,
    )
    found = mistakes(wrong)
    for words in (
        "a: id does not count up on SQLite",
        "b: a_id is INTEGER on PostgreSQL, but a.id is BIGINT",
        "b: the foreign key a_id has no index",
        "b: SQLite gives ids of deleted rows again",
        "b: the ForeignKeyConstraint (a_id) has no name",
        "b: the CheckConstraint () has a name of over 63",
        "b: at has no time zone on SQLite",
    ):
        assert sum(each.startswith(words) for each in found) == 1, (words, found)


def test_what_is_right_is_the_default() -> None:
    right = MetaData()
    set_defaults(right)
    Table("a", right, Column("id", BigId, primary_key=True))
    columns: list[Any] = [
        Column("id", BigId, primary_key=True),
        Column("a_id", Integer, ForeignKey("a.id"), index=True),
        Column("at", DateTime),
        Column("name", Integer, unique=True),
    ]
    table = Table("b", right, *columns, CheckConstraint("name > 0", name="positive"))
    assert mistakes(right) == []
    assert isinstance(table.c["at"].type, UTCDateTime)
    named = {type(each): each.name for each in table.constraints}
    assert named[ForeignKeyConstraint] == "fk_b_a_id_a"
    assert named[UniqueConstraint] == "uq_b_name"
