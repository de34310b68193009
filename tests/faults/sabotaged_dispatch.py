"""The dispatcher, which can be made to die at a certain point, or to send everything several times."""

import os
import signal
import sys
from collections.abc import Sequence

from app.queue.models import Batch
from tasks import broker, dispatch
from tests.faults.switches import Switches

_switches = Switches.of_this_process()


def _die_if(point: str) -> None:
    if _switches.take(f"die_{point}"):
        os.kill(os.getpid(), signal.SIGKILL)


class Broker(broker.Broker):
    """Sends batches as the real one does; dies before, in the middle or after, or sends copies, as the switches say."""

    def publish(self, batches: Sequence[Batch]) -> None:
        _die_if("before_publish")
        if _switches.get("die_half_published"):
            super().publish(batches[: len(batches) // 2])
            _die_if("half_published")
        for _ in range(int(_switches.get("copies") or 1)):
            super().publish(batches)
        _die_if("after_publish")


if __name__ == "__main__":
    dispatch.Broker = Broker  # type: ignore[attr-defined]
    sys.exit(dispatch.main())
