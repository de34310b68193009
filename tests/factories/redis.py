"""A Redis of a test's own, which can be killed, frozen and started again on the same port."""

import signal

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.stack import ports, redis_server
from app.stack.layout import Layout
from tests.factories.processes import LocalProcess, wait_until

_START_SECONDS = 60.0
_ADMIN = "faults"


class RedisServer:
    """Redis with the service's own configuration, and a user beside who may do everything.

    Args:
        layout: Where it lies.
        password: Of the service's users.
        database: Which of its databases `admin` is in.

    Attributes:
        port: Where it listens, on loopback.
        admin: Logged in as that user.
    """

    def __init__(self, layout: Layout, password: str, database: int = 0) -> None:
        self.port = ports.choose(0)
        binary = redis_server.newest_binary()
        self._configuration = redis_server.write_configuration(layout, self.port, password, binary)
        self._honest = self._configuration.read_text(encoding="utf-8") + f"user {_ADMIN} on nopass ~* &* +@all\n"
        self._password = password
        self._process = LocalProcess("redis", [str(binary.path), str(self._configuration)], layout.logs, {})
        self.keeps_a_log(False)
        once = Retry(NoBackoff(), 0)
        self.admin: Redis = Redis(port=self.port, db=database, username=_ADMIN, password="any", socket_timeout=5, retry=once)

    def keeps_a_log(self, keeps: bool) -> None:
        """Write each command to disk (appendonly) from the next start on, or not."""
        self._configuration.write_text(self._honest + ("appendonly yes\nappendfsync everysec\n" if keeps else ""), encoding="utf-8")

    def start(self) -> None:
        """Start it and return once it answers."""
        self._process.start()
        wait_until(lambda: redis_server.problem(self.port, self._password) is None, _START_SECONDS, "Redis does not start")

    def stop(self) -> None:
        """Stop it in order; it writes a snapshot."""
        self._process.stop()

    def kill(self) -> None:
        """Kill it: what it has not written is gone."""
        self._process.kill()

    def freeze(self) -> None:
        """Stop it without closing a connection, as a machine that hangs."""
        self._process.kill(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.kill(signal.SIGCONT)

    def close(self) -> None:
        """Stop it for good."""
        self.admin.close()
        self._process.stop()
