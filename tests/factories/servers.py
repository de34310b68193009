"""PostgreSQL and Redis of one test session, and a database for each test."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import extensions, sql
from redis import Redis
from sqlalchemy import make_url

from app.config import Settings
from app.database_setup import bootstrap, ensure_first_keys, migrate
from app.stack import leftovers, ports
from app.stack.layout import Layout
from app.stack.secret_files import write_missing
from app.stack.service import Stack

TEMPLATE = "nexus_template"
_CACHE_DB, _BROKER_DB = 0, 1
# The data lives for minutes: durability would only cost time. What the tests prove does not rest on fsync.
_FASTER = ("fsync = off", "full_page_writes = off", "autovacuum_naptime = '1h'")


class TestServers:
    """The session's own servers, which no test may leave.

    Attributes:
        settings: Point at the template database; copies made by `settings_for` point at others.
    """

    __test__ = False

    def __init__(self) -> None:
        # Not pytest's folder, whose mode 700 it restores at any time: PostgreSQL may run as another user.
        self._folder = Path(tempfile.mkdtemp(prefix="nexus-tests-"))
        chosen = Settings(data_dir=self._folder / "data", secrets_dir=self._folder / "secrets", port=ports.choose(0))
        write_missing(chosen)
        self._superuser_dsn = ""
        self._numbers = itertools.count(1)
        self._stack = Stack(chosen, prepare=self._prepare, services=lambda *_: (), problem=lambda _: None)
        self._layout = Layout(chosen.data_dir.resolve())

    def start(self) -> None:
        """Start both servers and make the template database."""
        self._stack.up()
        running = self._stack.settings
        port = make_url(running.database_url).port
        redis = running.redis_url.rpartition("/")[0]
        self.settings = Settings(
            data_dir=running.data_dir,
            secrets_dir=running.secrets_dir,
            port=running.port,
            database_url=f"postgresql://127.0.0.1:{port}/{TEMPLATE}",
            redis_url=f"{redis}/{_CACHE_DB}",
            broker_url=f"{redis}/{_BROKER_DB}",
            database_connect_timeout_seconds=10,
            authentication_cache_seconds=0.05,
            # Leases count again so long after PostgreSQL's start.
            heartbeat_seconds=0.5,
        )
        with closing(self.superuser("postgres")) as connection, connection.cursor() as cursor:
            for line in _FASTER:
                cursor.execute(f"ALTER SYSTEM SET {line}")
            cursor.execute("SELECT pg_reload_conf()")
        bootstrap(self.settings, self._superuser_dsn)
        migrate(self.settings)
        ensure_first_keys(self.settings)

    def stop(self) -> None:
        """Stop both servers, by their process ids, and remove what they wrote."""
        try:
            self._stack.down()
        finally:
            leftovers.stop_all(self._layout.stack_id)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self, _: Settings, superuser_dsn: str | None) -> None:
        """Only learn the superuser's address: `start` makes databases of other names."""
        self._superuser_dsn = superuser_dsn or ""

    @property
    def superuser_dsn(self) -> str:
        """SQLAlchemy URL of the cluster's superuser."""
        return self._superuser_dsn

    def superuser(self, database: str) -> extensions.connection:
        """Return a connection of the cluster's superuser, in autocommit."""
        url = make_url(self._superuser_dsn)
        connection = psycopg2.connect(host=url.host, port=url.port, user=url.username, password=url.password, dbname=database)
        connection.autocommit = True
        return connection

    def settings_for(self, database: str, **changes: object) -> Settings:
        """Return the settings of another database of this cluster."""
        port = make_url(self.settings.database_url).port
        values = self.settings.model_dump(include=self.settings.model_fields_set)
        return Settings(**{**values, "database_url": f"postgresql://127.0.0.1:{port}/{database}", **changes})

    def refuse_foreign(self, settings: Settings) -> None:
        """Raise AssertionError unless PostgreSQL, cache and broker are this session's."""
        for ours, given in (
            (self.settings.database_url, settings.database_url),
            (self.settings.redis_url, settings.redis_url),
            (self.settings.broker_url, settings.broker_url),
        ):
            left, right = make_url(ours), make_url(given)
            assert (left.host, left.port) == (right.host, right.port), f"a test must not touch {right.host}:{right.port}"
        assert make_url(settings.database_url).database not in {"postgres", "nexus_memory", TEMPLATE}

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """Clone the template and yield the clone's name; it is dropped afterwards, whoever is connected."""
        name = f"nexus_test_{next(self._numbers)}"
        with closing(self.superuser("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(
                # Without fsync a copy of files takes a sixth of the time that logging every block takes.
                sql.SQL("CREATE DATABASE {} OWNER nexus_superuser TEMPLATE {} STRATEGY FILE_COPY").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
            # A clone does not inherit who may connect.
            cursor.execute(
                "UPDATE pg_database SET datacl = (SELECT datacl FROM pg_database WHERE datname = %s) WHERE datname = %s", (template, name)
            )
        try:
            yield name
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Drop a database if it is there, disconnecting whoever is in it."""
        with closing(self.superuser("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def flush_redis(self) -> None:
        """Delete every key of cache and broker, one by one: no user of the service may FLUSHDB."""
        broker = self.settings.broker_dsn
        for dsn in (broker, broker.rpartition("/")[0] + f"/{_CACHE_DB}"):
            with Redis.from_url(dsn) as redis:
                found = list(redis.scan_iter(count=1000))
                if found:
                    redis.delete(*found)
