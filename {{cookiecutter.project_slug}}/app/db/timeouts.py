"""Timeouts by PostgreSQL's names: of the settings, or of one transaction."""

from collections.abc import Mapping
from math import ceil
from typing import Any, TypedDict, Unpack

from sqlalchemy import Select, func, select


class Timeouts(TypedDict, total=False):
    """Timeouts in seconds; 0 turns one off."""

    statement: float
    lock: float
    idle_in_transaction: float


_PARAMETERS = {
    "statement": "statement_timeout",
    "lock": "lock_timeout",
    "idle_in_transaction": "idle_in_transaction_session_timeout",
}


def timeout_parameters(**seconds: Unpack[Timeouts]) -> dict[str, str]:
    """Return the parameters that set these timeouts.

    Raises `ValueError` if one is negative, or longer than a day.
    """
    given: dict[str, Any] = {**seconds}
    if not all(0 <= value <= 86_400 for value in given.values()):
        raise ValueError("timeout must be between 0 and 86,400 seconds")
    # PostgreSQL counts whole milliseconds, and takes 0 for none as well.
    return {_PARAMETERS[name]: str(ceil(given[name] * 1_000)) for name in given}


def set_local(parameters: Mapping[str, str]) -> Select[Any]:
    """Return the statement that sets parameters until the transaction ends.

    A plain SET would stay for the next user of the connection, whoever that is.
    """
    return select(*(func.set_config(*item, True) for item in parameters.items()))
