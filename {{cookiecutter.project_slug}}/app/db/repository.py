{% extends "repository.jinja" %}
{% block queries %}
"""What every repository can do; none commits: see `app/transaction.py`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

{% if cookiecutter.orm == 'sqlmodel' %}
from sqlalchemy import ColumnElement, SQLColumnExpression, bindparam, inspect, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.interfaces import ORMOption
from sqlmodel import select
{% else %}
from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    bindparam,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.interfaces import ORMOption
{% endif %}

from app.db.session import ReadSession, WriteSession

ModelT = TypeVar("ModelT")


class ReadRepository(Generic[ModelT]):
    """Reads models of one class; a subclass names it in `model`.

    `loads` says which relationships are read along, as `selectinload(Order.items)`.
    Reading another one raises `LazyLoadError`.
    """

    model: type[ModelT]
    loads: ClassVar[tuple[ORMOption, ...]] = ()

    def __init__(self, session: ReadSession) -> None:
        """Read with `session`."""
        self.session = session

    async def get(self, id: int) -> ModelT | None:
        """Return the row with this id, if there is one."""
        result = await self.session.scalars(self._by_id(), params={"id": id})
        found: ModelT | None = result.unique().one_or_none()
        return found

    async def list(
        self,
        *filters: ColumnElement[bool],
        order_by: Sequence[SQLColumnExpression[Any]] = (),
        limit: int,
        offset: int = 0,
    ) -> Sequence[ModelT]:
        """Return at most `limit` rows that pass all filters.

        They are ordered by id, or by `order_by` and then by id, as in
        `order_by=[col(Product.price).desc()]`: no two rows change places between pages.
        """
        primary_key = inspect(self.model).primary_key
        query = select(self.model).where(*filters).options(*self.loads)
        query = query.order_by(*order_by, *primary_key).limit(limit).offset(offset)
        result = await self.session.scalars(query)
        return result.unique().all()

    @classmethod
    @cache
    def _by_id(cls) -> Any:
        # Built once a class: `session.get` builds it each time.
        (key,) = inspect(cls.model).primary_key
        return select(cls.model).where(key == bindparam("id")).options(*cls.loads)

    @asynccontextmanager
    async def batches(
        self,
        *filters: ColumnElement[bool],
        size: int = 1_000,
    ) -> AsyncIterator[AsyncIterator[Sequence[ModelT]]]:
        """Give any number of rows that pass all filters, ordered by id, in batches.

        Only one batch is in memory. What `loads` says is read for each batch, so it has
        to be `selectinload`.
        """
        primary_key = inspect(self.model).primary_key
        query = select(self.model).where(*filters).options(*self.loads)
        query = query.order_by(*primary_key).execution_options(yield_per=size)
        result = await self.session.stream_scalars(query)
        try:
            yield result.partitions()
        finally:
            await result.close()


class Repository(ReadRepository[ModelT]):
    """Reads and writes models of one class."""

    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Read and write with `session`."""
        super().__init__(session)

    async def lock(self, id: int) -> ModelT | None:
        """Return the row, locked until the transaction ends.

        What `loads` says is read after the lock, so it has to be `selectinload`.
        """
        return await self.session.get(
            self.model,
            id,
            options=self.loads,
            with_for_update=True,
        )

    async def add(self, instance: ModelT) -> ModelT:
        """Add `instance` and flush, so that it has its id and its defaults.

        Raises `sqlalchemy.exc.IntegrityError` if it breaks a constraint.
        """
        self.session.refuse_detached(instance, may_be_new=True)
        self.session.add(instance)
        await self.session.flush()
        return instance

    async def get_or_create(
        self,
        defaults: dict[str, Any] | None = None,
        **key: Any,
    ) -> tuple[ModelT, bool]:
        """Return the row with this unique key, and whether it was made just now.

        Two transactions that create the same row both get it: the later INSERT fails
        inside a savepoint, and its transaction goes on.
        """
        found = await self._find(key)
        if found is not None:
            return found, False
        try:
            async with self.session.begin_nested():
                new = await self.add(self.model(**key, **(defaults or {})))
        except IntegrityError:
            if found := await self._find(key):
                return found, False
            raise
        if self.loads:
            await self._find(key)
        return new, True

    async def bulk_update(self, *filters: ColumnElement[bool], **values: Any) -> int:
        """Set `values` in every row that passes all filters; return how many."""
        statement = update(self.model).where(*filters).values(**values)
        result: Any = await self.session.execute(statement)
        count: int = result.rowcount
        return count

    async def update(self, instance: ModelT, values: Mapping[str, Any]) -> ModelT:
        """Set `values` in `instance` and flush.

        Raises `sqlalchemy.exc.IntegrityError` if they break a constraint,
        `DetachedObjectError` if `instance` is not the session's.
        """
        self.session.refuse_detached(instance)
        for name, value in values.items():
            if not hasattr(self.model, name):
                raise AttributeError(f"{self.model.__name__} has no attribute {name}")
            setattr(instance, name, value)
        await self.session.flush()
        # What was set to a SQL expression.
        if expired := inspect(instance).expired_attributes & values.keys():
            await self.session.refresh(instance, expired)
        return instance

    async def delete(self, instance: ModelT) -> None:
        """Delete `instance`.

        Raises `sqlalchemy.exc.IntegrityError` if something still refers to it,
        `DetachedObjectError` if `instance` is not the session's.
        """
        self.session.refuse_detached(instance)
        await self.session.delete(instance)
        await self.session.flush()

    async def _find(self, key: dict[str, Any]) -> ModelT | None:
        query = select(self.model).filter_by(**key).options(*self.loads)
        result = await self.session.scalars(query)
        return result.unique().one_or_none()
{% endblock %}
