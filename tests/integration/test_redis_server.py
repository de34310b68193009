"""The embedded Redis starts with its configuration, whichever of this machine's programs runs it."""

from pathlib import Path

import pytest
import redis

from app.stack import ports, redis_server
from app.stack.layout import Layout
from app.stack.redis_server import RECONCILER_USER, RedisBinary
from tests.factories.processes import LocalProcess, wait_until

_USERS = ("nexus_cache", "nexus_broker", RECONCILER_USER)


@pytest.mark.parametrize("binary", redis_server.binaries(), ids=lambda binary: binary.label)
def test_each_program_takes_the_configuration(binary: RedisBinary, tmp_path: Path) -> None:
    layout, port = Layout(tmp_path), ports.choose(0)
    layout.create()
    file = redis_server.write_configuration(layout, port, "secret", binary)
    server = LocalProcess("redis", [str(binary.path), str(file)], layout.logs, {})
    server.start()
    try:
        wait_until(
            lambda: redis_server.problem(port, "secret") is None or not server.is_running,
            30,
            lambda: f"{binary.label} does not start: {server.logs()[-500:].decode()}",
        )
        assert server.is_running, server.logs()[-500:].decode()
        for user in _USERS:
            with redis.Redis(port=port, username=user, password="secret", client_name="test") as client:
                assert client.set("nexus:a", "1")
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.config_get("requirepass")
    finally:
        server.stop()


@pytest.mark.parametrize(("version", "is_named"), [((6, 2, 14), True), ((7, 0, 15), False), ((7, 2, 0), True), ((8, 0, 0), True)])
def test_a_command_is_named_only_where_the_version_does_not_refuse_the_whole_configuration(
    version: tuple[int, ...], is_named: bool, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    layout.create()
    text = redis_server.write_configuration(layout, 1, "secret", RedisBinary(Path("redis-server"), "redis", version)).read_text()
    assert ("+client|setinfo" in text) is is_named
    assert text.count("+client|setname") == len(_USERS)
