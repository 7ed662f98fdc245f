"""What a model has by default, on each database."""

from datetime import UTC, datetime, timedelta, timezone

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from app.config import Settings
from app.suppliers.models import Supplier
from tests.support import run, run_on

WEST = timezone(timedelta(hours=-5))


def keep_times(connection: Connection) -> None:
    now = datetime.now(UTC)
    with Session(connection) as session:
        supplier = Supplier(name="Orchard", since=now.astimezone(WEST))
        session.add(supplier)
        session.flush()
        created, updated = supplier.created_at, supplier.updated_at
        supplier.name = "Garden"
        session.flush()
        assert now <= created == updated < supplier.updated_at
        session.expire_all()
        assert (supplier.since, supplier.since.tzinfo) == (now, UTC)
        assert (supplier.created_at, supplier.version) == (created, 2)
        session.rollback()


def test_times_are_kept_to_the_microsecond_in_utc(settings: Settings) -> None:
    run(run_on, settings, keep_times)
