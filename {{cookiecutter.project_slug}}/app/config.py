"""Settings, read from the environment and from `.env`; times are in seconds."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]

# Values of target_session_attrs that both drivers know.
ROLES = {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
_SEVERAL_HOSTS = re.compile(r"(postgres[^/]*://(?:[^@/]*@)?)([^@/?]*,[^@/?]*)([/?].*)?")

# Fractions are allowed, 0 turns a timeout off; PostgreSQL counts milliseconds in
# 31 bits, so a day is a safe upper bound.
Seconds = Annotated[float, Field(ge=0, le=86_400)]


def parse_url(text: str) -> URL:
    """Return a URL; several hosts go into its query, as SQLAlchemy knows only one.

    Raises `ValueError` if `text` is not a database URL.
    """
    try:
        if not (match := _SEVERAL_HOSTS.fullmatch(text)):
            return make_url(text)
        start, hosts, rest = match.groups(default="")
        servers = [make_url(f"postgresql://{host}") for host in hosts.split(",")]
        url = make_url(start + rest)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL") from None
    host = ",".join(server.host or "" for server in servers)
    port = ",".join(str(server.port or 5432) for server in servers)
    return url.update_query_dict({"host": host, "port": port})


class Settings(BaseSettings):
    """What can be set. docs/settings.md has a line for each."""

    model_config = SettingsConfigDict(
        env_file=ROOT / ".env", extra="ignore", hide_input_in_errors=True
    )

    environment: Literal["development", "test", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["line", "json"] = Field(
        default_factory=lambda data: (
            "json" if data["environment"] == "production" else "line"
        )
    )
    cors_origins: Annotated[list[str], NoDecode] = []
    max_body_size: int = Field(default=1_048_576, ge=1)
{% if cookiecutter.example %}
    secret_key: SecretStr = SecretStr("")
    token_lifetime: float = Field(default=3_600, gt=0, le=31_536_000)
{% endif %}

    database_url: SecretStr = SecretStr(f"sqlite:///{ROOT / 'database.db'}")
    database_replica_url: SecretStr = SecretStr("")
    database_migration_url: SecretStr = SecretStr("")
    database_migration_timeout: Seconds = 300
    database_pooler: Literal["none", "transaction"] = "none"
    # A connection costs the server memory whether it is used or not, so only
    # production opens many. All of the pool is `size`: overflow connections are
    # closed when they are returned, which costs a reconnect for each burst.
    database_pool_size: int = Field(
        default_factory=lambda data: 10 if data["environment"] == "production" else 5,
        ge=1,
    )
    database_max_overflow: int = Field(default=0, ge=0)
    database_pool_timeout: Seconds = 10
    database_pool_recycle: Seconds = 1_800
    database_connect_timeout: Seconds = 5
    database_statement_timeout: Seconds = 30
    database_lock_timeout: Seconds = 5
    database_idle_in_transaction_timeout: Seconds = 60
    database_stream_timeout: Seconds = 300
    database_retry_deadline: Seconds = 5
    database_held_warning: Seconds = 10
    database_echo: bool = False

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split_origins(cls, value: Any) -> Any:
        """Read origins as they are usually written: separated by commas."""
        if isinstance(value, str):
            return [origin.strip() for origin in value.split(",") if origin.strip()]
        return value

    @field_validator("database_url", "database_replica_url", "database_migration_url")
    @classmethod
    def check_url(cls, value: SecretStr, field: ValidationInfo) -> SecretStr:
        """Refuse what no driver of this project could open."""
        if not value.get_secret_value() and field.field_name != "database_url":
            return value
        url = parse_url(value.get_secret_value())
        if url.drivername.partition("+")[0] not in {"sqlite", "postgresql", "postgres"}:
            raise ValueError("must begin with postgresql:// or sqlite://")
        if url.drivername.startswith("sqlite") and (
            url.database in {None, "", ":memory:"} or "mode" in url.query
        ):
            raise ValueError(
                "must name a file: each connection to :memory: is another database"
            )
        hosts = str(url.query.get("host", "")).split(",")
        ports = str(url.query.get("port", "")).split(",")
        role = url.query.get("target_session_attrs")
        is_complete = all(hosts) and all(map(str.isdecimal, ports)) and role
        if len(hosts) > 1 and not (is_complete and len(hosts) == len(ports)):
            raise ValueError(
                "must name several hosts as in "
                "postgresql://a:5432,b:5432/name?target_session_attrs=read-write"
            )
        if role is not None and role not in ROLES:
            raise ValueError(f"target_session_attrs must be one of {sorted(ROLES)}")
        return value

    @model_validator(mode="after")
    def check_together(self) -> Self:
        """Refuse settings that contradict each other, or that production needs."""
        is_given = "database_url" in self.model_fields_set
        if self.environment == "production" and not is_given:
            raise ValueError(
                "DATABASE_URL must be set in production: the default is a local SQLite "
                "file, which the next deploy may lose (name it to use one all the same)"
            )
        if self.is_sqlite and self.database_pooler != "none":
            raise ValueError("DATABASE_POOLER is for PostgreSQL, not for SQLite")
        for name in ("database_replica_url", "database_migration_url"):
            kinds = {self.is_sqlite, self.url_of(name).drivername.startswith("sqlite")}
            if getattr(self, name) and kinds != {False}:
                raise ValueError(f"{name.upper()} is for PostgreSQL, not for SQLite")
        if 0 < self.database_statement_timeout <= self.database_lock_timeout:
            raise ValueError(
                "DATABASE_LOCK_TIMEOUT must be smaller than DATABASE_STATEMENT_TIMEOUT"
            )
        return self

    @property
    def url(self) -> URL:
        """The database's URL; its repr hides the password."""
        return self.url_of("database_url")

    def url_of(self, name: str) -> URL:
        """Return the URL in the setting `name`; if that is empty, the database's."""
        secret: SecretStr = getattr(self, name) or self.database_url
        return parse_url(secret.get_secret_value())

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is an SQLite file."""
        return self.url.drivername.startswith("sqlite")


def load_settings() -> Settings:
    """Read the settings, or stop the process with one clear line for each mistake."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            ": ".join([*map(str.upper, map(str, e["loc"])), e["msg"]])
            for e in error.errors(include_input=False, include_url=False)
            if e["type"] != "default_factory_not_called"  # follows from another mistake
        ]
        message = "; ".join(lines).replace("Value error, ", "")
        raise SystemExit(f"Wrong settings. {message}") from None
