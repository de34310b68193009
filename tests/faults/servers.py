"""PostgreSQL, Redis and RabbitMQ of the suite's own, which can be killed, stopped, frozen and started again on the same port."""

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from kombu.connection import Connection
from redis.exceptions import RedisError

from app.stack import ports
from app.stack.layout import Layout
from app.stack.postgres import Postgres
from tasks.names import CONSUMED_QUEUES
from tests.factories.processes import LocalProcess, wait_until
from tests.factories.rabbitmq import RabbitCluster, RabbitServer
from tests.factories.redis import RedisServer

_START_SECONDS = 60.0
_PRIORITY_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")
_BROKER_DB = 1

ShutDown = Literal["fast", "immediate"]
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresServer:
    """One cluster with the service's own configuration, fsync included.

    Args:
        layout: Where it lies.
    """

    def __init__(self, layout: Layout) -> None:
        self.port = ports.choose(0)
        self._postgres = Postgres(layout, lambda _: None)
        user = self._postgres.prepare(self.port)
        self._process = LocalProcess("postgres", self._postgres.command, layout.logs, {"LC_ALL": "C", "TZ": "UTC"}, user)

    @property
    def superuser_dsn(self) -> str:
        """SQLAlchemy URL of the cluster's superuser."""
        return self._postgres.superuser_dsn(self.port)

    def start(self) -> None:
        """Start it and return once it takes connections, its log replayed."""
        self._process.start()
        wait_until(lambda: self._postgres.problem(self.port) is None, _START_SECONDS, "PostgreSQL does not start", every=0.05)

    def stop(self, how: ShutDown = "fast") -> None:
        """Shut it down as `pg_ctl stop -m` does."""
        self._process.stop(_START_SECONDS, signal.Signals(_SIGNALS[how]))


class Broker(Protocol):
    """What the suite does to a broker, whichever it is."""

    name: str
    port: int

    def start(self) -> None:
        """Start it and return once it answers."""

    def stop(self) -> None:
        """Stop it in order."""

    def kill(self) -> None:
        """Kill it as a loss of power would."""

    def url(self, port: int) -> str:
        """Return its URL without credentials, for whoever reaches it at that port."""

    def depth(self) -> int:
        """Return how many messages it holds for workers, unacknowledged ones included where it tells."""

    def close(self) -> None:
        """Stop it for good and remove what it wrote."""


class RedisBroker(RedisServer):
    """Redis as a broker; it is the cache too.

    Args:
        layout: Where it lies.
        password: Of the service's users.
    """

    name = "redis"

    def __init__(self, layout: Layout, password: str) -> None:
        super().__init__(layout, password, _BROKER_DB)

    def url(self, port: int) -> str:
        """Return its URL without credentials, for whoever reaches it at that port."""
        return f"redis://127.0.0.1:{port}/{_BROKER_DB}"

    def depth(self) -> int:
        """Return the messages in every list of every queue, and those unacknowledged; 0 while Redis does not answer."""
        try:
            lists = [self.admin.llen(f"{queue}{step}") for queue in CONSUMED_QUEUES for step in _PRIORITY_STEPS]
            return sum(int(length) for length in lists) + int(self.admin.hlen("unacked"))
        except RedisError:
            return 0


class RabbitBroker:
    """RabbitMQ with the face of the other broker.

    Attributes:
        server: The server itself.
    """

    name = "rabbitmq"

    def __init__(self) -> None:
        self.server = RabbitServer()
        self.port = self.server.address[1]

    def start(self) -> None:
        """Start it and return once it takes connections."""
        self.server.start()

    def stop(self) -> None:
        """Stop it in order."""
        self.server.stop()

    def kill(self) -> None:
        """Kill it; what it confirmed is on disk."""
        self.server.kill()

    def url(self, port: int) -> str:
        """Return its URL without credentials, for whoever reaches it at that port."""
        return f"amqp://127.0.0.1:{port}//"

    @property
    def password_file(self) -> Path:
        """File of the user's password."""
        return self.server.password_file

    def depth(self) -> int:
        """Return the messages that wait in every queue; 0 while it does not answer. It does not tell of unacknowledged ones here."""
        return _depth_of_rabbitmq([self.server])

    def close(self) -> None:
        """Stop it for good and remove its folder."""
        self.server.close()


class RabbitClusterBroker:
    """Three nodes of RabbitMQ with the face of one broker; clients know the addresses of all.

    Attributes:
        cluster: The nodes.
    """

    name = "rabbitmq, three nodes"

    def __init__(self) -> None:
        self.cluster = RabbitCluster()
        self.port = self.cluster.nodes[0].address[1]

    def start(self) -> None:
        """Start every node that is down and return once they are one cluster."""
        self.cluster.start()

    def stop(self) -> None:
        """Stop every node in order."""
        self.cluster.stop()

    def kill(self) -> None:
        """Kill every node; what they confirmed is on their disks."""
        self.cluster.kill()

    def url(self, port: int) -> str:
        """Return the URLs of every node without credentials, the first one for whoever reaches it at that port."""
        others = (node.address[1] for node in self.cluster.nodes[1:])
        return ";".join(f"amqp://127.0.0.1:{each}//" for each in (port, *others))

    @property
    def password_file(self) -> Path:
        """File of the user's password."""
        return self.cluster.nodes[0].password_file

    def depth(self) -> int:
        """Return the messages that wait in every queue, as the first node that answers tells; 0 if none does."""
        return _depth_of_rabbitmq(self.cluster.nodes)

    def close(self) -> None:
        """Stop it for good and remove its folders."""
        self.cluster.close()


def _depth_of_rabbitmq(nodes: Sequence[RabbitServer]) -> int:
    for node in nodes:
        connection = Connection(node.url_with_credentials, connect_timeout=2)  # type: ignore[no-untyped-call]
        try:
            return sum(_waiting(connection, queue) for queue in CONSUMED_QUEUES)
        except (OSError, *connection.connection_errors):
            continue
        finally:
            connection.release()  # type: ignore[no-untyped-call]
    return 0


def _waiting(connection: Connection, queue: str) -> int:
    try:
        return int(connection.channel().queue_declare(queue, passive=True).message_count)  # type: ignore[no-untyped-call]
    except connection.channel_errors:
        return 0


BROKERS: Mapping[str, Callable[[], Broker]] = {"rabbitmq": RabbitBroker, "rabbitmq-cluster": RabbitClusterBroker}
"""By the name that a case asks for; "redis" is not among them, for it is the cache as well."""


def make_layout(folder: Path) -> Layout:
    """Return the folders of one set of servers, made."""
    layout = Layout(folder / "data")
    layout.create()
    return layout
