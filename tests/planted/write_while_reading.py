"""The mistake that mypy finds: a session that reads is handed to what writes."""

from app.db.session import ReadSession, WriteSession
from app.products.repository import ProductReadRepository, ProductRepository


def read(session: ReadSession) -> ProductReadRepository:
    return ProductReadRepository(session)


def write(session: WriteSession) -> ProductRepository:
    read(session)
    return ProductRepository(session)


def write_while_reading(session: ReadSession) -> ProductRepository:
    return ProductRepository(session)
