"""Peer (b), synchronous: (a) with the defaults of SQLAlchemy's pool and of FastAPI.

Fifteen connections at most, ten of which are closed when they are returned; and the
COMMIT comes after the response, as in tutorials: a client may hear of success in vain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

import jwt
from fastapi import Depends, FastAPI, HTTPException, Path, Query
from fastapi.security import OAuth2PasswordBearer
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    model_validator,
)
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKey,
    Table,
    case,
    create_engine,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    sessionmaker,
)

# The database.

URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = create_engine(URL)
sessions = sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """A table with an id."""

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)


product_tags = Table(
    "product_tags",
    Base.metadata,
    Column("product_id", ForeignKey("products.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class User(Base):
    """Who buys."""

    __tablename__ = "users"

    email: Mapped[str]
    full_name: Mapped[str]
    password_hash: Mapped[str]
    balance: Mapped[int] = mapped_column(BigInteger)


class Tag(Base):
    """A word that products have in common."""

    __tablename__ = "tags"

    name: Mapped[str]


class Product(Base):
    """What is sold."""

    __tablename__ = "products"

    sku: Mapped[str]
    name: Mapped[str]
    price: Mapped[int] = mapped_column(BigInteger)
    stock: Mapped[int] = mapped_column(BigInteger)
    tags: Mapped[list[Tag]] = relationship(secondary=product_tags)


class OrderItem(Base):
    """A line of an order."""

    __tablename__ = "order_items"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int]
    price: Mapped[int] = mapped_column(BigInteger)


class Order(Base):
    """What was bought at once."""

    __tablename__ = "orders"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    status: Mapped[str]
    total: Mapped[int] = mapped_column(BigInteger)
    items: Mapped[list[OrderItem]] = relationship(order_by=OrderItem.product_id)


def get_session() -> Iterator[Session]:
    """Give a request its session; an exception rolls back."""
    with sessions() as session:
        yield session
        session.commit()


SessionDep = Annotated[Session, Depends(get_session)]

# What clients send and get.

MAX_ID = 2**63 - 1


def printable(text: str) -> str:
    """Return a text of printable characters only."""
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


def distinct(names: list[str]) -> list[str]:
    """Return each name once."""
    return list(dict.fromkeys(names))


Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Sku = Annotated[Text, Field(min_length=1, max_length=64), AfterValidator(printable)]
TagName = Annotated[Text, Field(min_length=1, max_length=50), AfterValidator(printable)]
Amount = Annotated[StrictInt, Field(ge=0, le=10**12)]
Id = Annotated[int, Path(ge=1, le=MAX_ID)]


class ProductCreate(BaseModel):
    """A new product."""

    model_config = ConfigDict(extra="forbid")

    sku: Sku
    name: Annotated[Text, Field(min_length=1, max_length=200)]
    price: Amount
    stock: Amount
    tags: Annotated[list[TagName], Field(max_length=10), AfterValidator(distinct)] = (
        Field(default_factory=list)
    )


class ProductPublic(BaseModel):
    """A product as everybody sees it."""

    id: int
    sku: str
    name: str
    price: int
    stock: int
    tags: list[str]

    @classmethod
    def of(cls, product: Product, **more: Any) -> Self:
        """Return what is shown of a product."""
        tags = sorted(tag.name for tag in product.tags)
        return cls(
            id=product.id,
            sku=product.sku,
            name=product.name,
            price=product.price,
            stock=product.stock,
            tags=tags,
            **more,
        )


class ProductListed(ProductPublic):
    """A product in a list."""

    ordered: bool | None = Field(
        default=None, exclude_if=lambda ordered: ordered is None
    )


class ProductQuery(BaseModel):
    """Which products to list."""

    limit: int = Field(default=50, ge=1, le=100)
    offset: int = Field(default=0, ge=0, le=MAX_ID)
    search: Text | None = Field(default=None, max_length=200)
    min_price: int | None = Field(default=None, ge=0, le=MAX_ID)
    max_price: int | None = Field(default=None, ge=0, le=MAX_ID)
    in_stock: bool | None = None
    tag: Text | None = Field(default=None, max_length=50)

    @model_validator(mode="after")
    def check_prices(self) -> Self:
        """Refuse a range that nothing can be in."""
        if (
            self.min_price is not None
            and self.max_price is not None
            and self.min_price > self.max_price
        ):
            raise ValueError("min_price must not exceed max_price")
        return self


class ProductPage(BaseModel):
    """A part of the list."""

    items: list[ProductListed]
    limit: int
    offset: int
    has_more: bool


Reason = Literal["shortage", "unknown"]


class Line(BaseModel):
    """How much of a product is wanted."""

    model_config = ConfigDict(extra="forbid")

    product_id: Annotated[StrictInt, Field(ge=1, le=MAX_ID)]
    quantity: Annotated[StrictInt, Field(ge=1, le=10_000)]


def each_once(lines: list[Line]) -> list[Line]:
    """Return lines of different products."""
    if len({line.product_id for line in lines}) < len(lines):
        raise ValueError("must name each product once")
    return lines


class OrderCreate(BaseModel):
    """What is wanted."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[
        list[Line], Field(min_length=1, max_length=100), AfterValidator(each_once)
    ]
    on_shortage: Literal["reject", "skip"] = "reject"


class OrderItemPublic(BaseModel):
    """A line of an order."""

    model_config = ConfigDict(from_attributes=True)

    product_id: int
    quantity: int
    price: int


class Skipped(BaseModel):
    """A line that was not available."""

    product_id: int
    quantity: int
    reason: Reason


class OrderPlaced(BaseModel):
    """A new order."""

    id: int
    status: Literal["placed", "fulfilled"]
    total: int
    items: list[OrderItemPublic]
    skipped: list[Skipped]


# Who is asking.

SECRET_KEY = os.environ["SECRET_KEY"]
bearer = OAuth2PasswordBearer(tokenUrl="auth/token", auto_error=False)
unauthorized = HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


def get_user_if_any(
    session: SessionDep, token: Annotated[str | None, Depends(bearer)]
) -> User | None:
    """Return the signed-in user, None without a token."""
    if token is None:
        return None
    try:
        options: Any = {"require": ["sub", "exp"]}
        claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"], options=options)
        user = session.get(User, int(claims["sub"]))
    except (jwt.InvalidTokenError, ValueError) as error:
        raise unauthorized from error
    if user is None:
        raise unauthorized
    return user


async def get_user(user: Annotated[User | None, Depends(get_user_if_any)]) -> User:
    """Return the signed-in user."""
    if user is None:
        raise unauthorized
    return user


UserIfAnyDep = Annotated[User | None, Depends(get_user_if_any)]
UserDep = Annotated[User, Depends(get_user)]

# The endpoints.

app = FastAPI()


@app.get("/products/{product_id}")
def get_product(session: SessionDep, product_id: Id) -> ProductPublic:
    """Show a product."""
    options = [joinedload(Product.tags)]
    product = session.get(Product, product_id, options=options)
    if product is None:
        raise HTTPException(404)
    return ProductPublic.of(product)


@app.get("/products")
def list_products(
    user: UserIfAnyDep, session: SessionDep, query: Annotated[ProductQuery, Query()]
) -> ProductPage:
    """List products by id; a user sees what was ordered before."""
    ordered: ColumnElement[Any] = null()
    if user is not None:
        lines = select(OrderItem.id).join(Order).where(Order.user_id == user.id)
        ordered = lines.where(OrderItem.product_id == Product.id).exists()
    statement = select(Product, ordered).options(selectinload(Product.tags))
    statement = statement.where(*conditions(query)).order_by(Product.id)
    result = session.execute(statement.offset(query.offset).limit(query.limit + 1))
    rows = result.all()
    items = [
        ProductListed.of(product, ordered=ordered)
        for product, ordered in rows[: query.limit]
    ]
    return ProductPage(
        items=items,
        limit=query.limit,
        offset=query.offset,
        has_more=len(rows) > query.limit,
    )


def conditions(query: ProductQuery) -> list[ColumnElement[bool]]:
    """Return the filters that are given."""
    given: list[ColumnElement[bool]] = []
    if query.search is not None:
        columns = (Product.name, Product.sku)
        matches = (c.icontains(query.search, autoescape=True) for c in columns)
        given.append(or_(*matches))
    if query.min_price is not None:
        given.append(Product.price >= query.min_price)
    if query.max_price is not None:
        given.append(Product.price <= query.max_price)
    if query.in_stock is not None:
        given.append(Product.stock > 0 if query.in_stock else Product.stock <= 0)
    if query.tag is not None:
        given.append(Product.tags.any(Tag.name == query.tag))
    return given


@app.post("/products", status_code=201)
def create_product(
    _user: UserDep, session: SessionDep, data: ProductCreate
) -> ProductPublic:
    """Add a product, with tags that there are or that are made."""
    tags = tags_of(session, data.tags)
    if missing := sorted({*data.tags} - {tag.name for tag in tags}):
        new = insert(Tag).values([{"name": name} for name in missing])
        session.execute(new.on_conflict_do_nothing())
        tags = tags_of(session, data.tags)
    product = Product(**data.model_dump(exclude={"tags"}), tags=[*tags])
    session.add(product)
    try:
        session.flush()
    except IntegrityError as error:
        raise HTTPException(409, "This SKU is taken.") from error
    return ProductPublic.of(product)


def tags_of(session: Session, names: list[str]) -> Sequence[Tag]:
    """Return the tags with these names that there are."""
    if not names:
        return []
    return session.scalars(select(Tag).where(Tag.name.in_(names))).all()


@app.post("/orders", status_code=201)
def place_order(user: UserDep, session: SessionDep, data: OrderCreate) -> OrderPlaced:
    """Take the lines from the stock, and store the order."""
    ids = [line.product_id for line in data.items]
    query = select(Product.id, Product.price, Product.stock).where(Product.id.in_(ids))
    rows = session.execute(query.order_by(Product.id).with_for_update())
    stocks = {id: (price, stock) for id, price, stock in rows}
    items: list[OrderItem] = []
    skipped: list[Skipped] = []
    for line in sorted(data.items, key=lambda line: line.product_id):
        price, stock = stocks.get(line.product_id, (0, 0))
        if stock >= line.quantity:
            items.append(OrderItem(**line.model_dump(), price=price))
        elif data.on_shortage == "skip":
            reason: Reason = "shortage" if line.product_id in stocks else "unknown"
            skipped.append(Skipped(**line.model_dump(), reason=reason))
        elif line.product_id in stocks:
            raise HTTPException(409, f"Product {line.product_id} is out of stock.")
        else:
            raise HTTPException(404, f"There is no product {line.product_id}.")
    if not items:
        raise HTTPException(409, "None of these products is available.")
    taken = {item.product_id: item.quantity for item in items}
    change = update(Product).where(Product.id.in_(taken))
    left = Product.stock - case(taken, value=Product.id)
    session.execute(
        change.values(stock=left), execution_options={"synchronize_session": False}
    )
    total = sum(item.price * item.quantity for item in items)
    order = Order(user_id=user.id, status="placed", total=total, items=items)
    session.add(order)
    session.flush()
    return OrderPlaced(
        id=order.id,
        status="placed",
        total=total,
        items=[OrderItemPublic.model_validate(item) for item in items],
        skipped=skipped,
    )
