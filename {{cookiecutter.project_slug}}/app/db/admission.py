"""Admission: wait for a free connection before taking one, and not for ever.

Inside the pool nobody would see who waits, and where sessions are synchronous each
would hold a thread, until nobody can go on to return a connection. Here the log says
that requests wait, streams leave slots to others, what is left of the timeout is for
connecting, and whoever is admitted finds a connection free.
"""

import time
from asyncio import Semaphore
from contextvars import ContextVar

from anyio import fail_after, move_on_after

from app.db.errors import PoolExhaustedError
from app.logs import logger

# The seconds of the pool timeout that waiting has left; None without a wait.
connect_timeout: ContextVar[float | None] = ContextVar("connect_timeout", default=None)


class Admission:
    """As many slots as a pool has connections, given in the order of asking.

    `async with admission:` holds a slot; it raises `PoolExhaustedError` when none
    becomes free in time. The log has a line when that begins, and when it has ended.
    """

    def __init__(self, slots: int, timeout: float, name: str = "database") -> None:
        """Offer `slots`; a wait ends after `timeout` seconds, with 0 never."""
        self.waiting = 0
        """How many requests wait for a slot."""
        self._size = slots
        self._slots = Semaphore(slots)
        self._timeout = timeout or None
        self._name = name
        self._is_exhausted = False

    async def __aenter__(self) -> None:
        if self._slots.locked():
            await self._wait()
        else:
            await self._slots.acquire()  # at once: a timer would cost more

    async def __aexit__(self, *_: object) -> None:
        # Background tasks go on in the same context, and have not waited.
        connect_timeout.set(None)
        self._slots.release()
        if self._is_exhausted and not self._slots.locked():
            self._is_exhausted = False
            logger.warning("%s pool has free connections again", self._name)

    async def _wait(self) -> None:
        start = time.monotonic()
        # A stream waits for two slots: both waits share the timeout.
        patience = connect_timeout.get() or self._timeout
        self.waiting += 1
        try:
            with fail_after(patience):
                await self._slots.acquire()
        except TimeoutError:
            if not self._is_exhausted:
                self._is_exhausted = True
                logger.warning(
                    "%s pool exhausted (%d in use, %d waiting): no connection became "
                    "free within %.2f s",
                    self._name,
                    self._size,
                    self.waiting,
                    patience,
                )
            raise PoolExhaustedError(
                "timed out waiting for a database connection"
            ) from None
        finally:
            self.waiting -= 1
        left = patience and max(patience - (time.monotonic() - start), 0.001)
        connect_timeout.set(left)

    async def drain(self, seconds: float) -> None:
        """Wait until all slots are free, at most `seconds`; admit no more."""
        with move_on_after(seconds):
            for _ in range(self._size):
                await self._slots.acquire()
