"""Admission: wait for a free connection before taking one, and not for ever (S15).

Requests that wait inside the pool hold a worker thread each; enough of them hold all
threads, and those that have a connection cannot go on to return it. So a request
waits here, in the event loop, and finds a connection free when it has been admitted.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from anyio import CapacityLimiter, fail_after, move_on_after

from app.db.errors import PoolExhaustedError

# What waiting has left of the pool timeout: how long connecting may take, in seconds.
connect_timeout: ContextVar[float | None] = ContextVar("connect_timeout", default=None)


class Admission:
    """As many places as a pool has connections, given in the order of asking."""

    def __init__(self, places: int, timeout: float) -> None:
        """Offer `places`; a wait ends after `timeout` seconds, with 0 never."""
        self._places = CapacityLimiter(places)
        self._timeout = timeout or None

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place; connecting inside gets what the wait has left of the timeout.

        Raises `PoolExhaustedError` when the timeout passes first.
        """
        start = time.monotonic()
        holder = object()
        # Who has waited for another place before has only the rest of the time.
        patience = connect_timeout.get() or self._timeout
        try:
            with fail_after(patience):
                await self._places.acquire_on_behalf_of(holder)
        except TimeoutError:
            raise PoolExhaustedError("no place within the pool timeout") from None
        try:
            waited = time.monotonic() - start
            connect_timeout.set(patience and max(patience - waited, 0.001))
            yield
        finally:
            # Background tasks go on in the same context, and have not waited.
            connect_timeout.set(None)
            self._places.release_on_behalf_of(holder)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._places.statistics().tasks_waiting

    async def drain(self, seconds: float) -> None:
        """Wait until nobody holds a place, at most `seconds`; admit no more."""
        with move_on_after(seconds):
            for _ in range(int(self._places.total_tokens)):
                await self._places.acquire_on_behalf_of(object())
