"""Passwords, hashed and verified off the event loop, a few at a time."""

from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

_hasher = PasswordHasher()
_threads = ThreadPoolExecutor(4, thread_name_prefix="password")


async def hash_password(password: str) -> str:
    """Return the hash to store."""
    return await get_running_loop().run_in_executor(_threads, _hash, password)


async def verify(password: str, password_hash: str | None) -> bool:
    """Whether `password` has this hash; without one, False after the same time."""
    loop = get_running_loop()
    return await loop.run_in_executor(_threads, _verify, password, password_hash)


def _hash(password: str) -> str:
    return _hasher.hash(password)


@cache
def _nobodys_hash() -> str:
    return _hasher.hash("")


def _verify(password: str, password_hash: str | None) -> bool:
    try:
        _hasher.verify(password_hash or _nobodys_hash(), password)
    except VerifyMismatchError:
        return False
    return password_hash is not None
