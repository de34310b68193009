"""A worker's heartbeat goes on whatever one of them meets: who falls silent is given no more work."""

import pytest

from app.errors import DatabaseUnavailable
from tasks.heartbeat import Heartbeat
from tests.factories.processes import wait_until


@pytest.mark.parametrize("error", [DatabaseUnavailable("down"), RuntimeError("nobody thought of it")])
def test_heartbeat_survives_what_one_of_them_meets(error: Exception) -> None:
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        raise error

    heartbeat = Heartbeat(beat, 0.01)
    heartbeat.start()
    wait_until(lambda: len(beats) > 3, 5, "the heartbeat has ended")
    heartbeat.stop()
