"""Conduit.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite counts up in INTEGER PRIMARY KEY columns only; they have 64 bits as well.
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def time(name: str) -> sa.Column[object]:
    """Return the column of a time that the database knows."""
    now = sa.text("CURRENT_TIMESTAMP")
    kind = sa.DateTime(timezone=True)
    return sa.Column(name, kind, server_default=now, nullable=False)


def reference(
    table: str, column: str, target: str, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    """Return a foreign key, under the name that the models give it."""
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint(
        [column], [f"{target}.id"], name=name, ondelete=ondelete
    )


def create_table(name: str, *parts: sa.schema.SchemaItem) -> None:
    """Create a table with an id and the time of a row's creation."""
    op.create_table(
        name,
        sa.Column("id", BIG_ID, nullable=False),
        time("created_at"),
        *parts,
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        sqlite_autoincrement=True,
    )


def create_index(table: str, column: str) -> None:
    """Create an index, under the name that the models give it."""
    op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def upgrade() -> None:
    """Apply the change."""
    create_table(
        "users",
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("bio", sa.String),
        sa.Column("image", sa.String),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    create_table(
        "follows",
        sa.Column("follower_id", BIG_ID, nullable=False),
        sa.Column("followed_id", BIG_ID, nullable=False),
        reference("follows", "follower_id", "users"),
        reference("follows", "followed_id", "users"),
        sa.UniqueConstraint(
            "follower_id",
            "followed_id",
            name=op.f("uq_follows_follower_id_followed_id"),
        ),
    )
    create_index("follows", "followed_id")
    create_table(
        "tags",
        sa.Column("name", sa.String(50), nullable=False),
        sa.UniqueConstraint("name", name=op.f("uq_tags_name")),
    )
    create_table(
        "articles",
        time("updated_at"),
        sa.Column("author_id", BIG_ID, nullable=False),
        sa.Column("slug", sa.String(250), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("favorites_count", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "favorites_count >= 0", name=op.f("ck_articles_count_not_negative")
        ),
        reference("articles", "author_id", "users"),
        sa.UniqueConstraint("slug", name=op.f("uq_articles_slug")),
    )
    create_index("articles", "author_id")
    op.create_table(
        "article_tags",
        sa.Column("article_id", BIG_ID, nullable=False),
        sa.Column("tag_id", BIG_ID, nullable=False),
        reference("article_tags", "article_id", "articles", "CASCADE"),
        reference("article_tags", "tag_id", "tags"),
        sa.PrimaryKeyConstraint("article_id", "tag_id", name=op.f("pk_article_tags")),
    )
    create_index("article_tags", "tag_id")
    create_table(
        "favorites",
        sa.Column("article_id", BIG_ID, nullable=False),
        sa.Column("user_id", BIG_ID, nullable=False),
        reference("favorites", "article_id", "articles", "CASCADE"),
        reference("favorites", "user_id", "users"),
        sa.UniqueConstraint(
            "article_id", "user_id", name=op.f("uq_favorites_article_id_user_id")
        ),
    )
    create_index("favorites", "user_id")
    create_table(
        "comments",
        time("updated_at"),
        sa.Column("article_id", BIG_ID, nullable=False),
        sa.Column("author_id", BIG_ID, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        reference("comments", "article_id", "articles", "CASCADE"),
        reference("comments", "author_id", "users"),
    )
    create_index("comments", "article_id")
    create_index("comments", "author_id")


def downgrade() -> None:
    """Take the change back."""
    for table in (
        *("comments", "favorites", "article_tags", "articles", "tags"),
        *("follows", "users"),
    ):
        op.drop_table(table)
