"""The dispatcher, which can be made to die at a certain point, or to send everything several times."""

import os
import signal
import sys
from collections.abc import Sequence

from app.queue.models import Batch
from tasks import dispatch
from tests.faults.switches import Switches

_switches = Switches.of_this_process()
_honest_publish = dispatch.publish


def _die_if(point: str) -> None:
    if _switches.take(f"die_{point}"):
        os.kill(os.getpid(), signal.SIGKILL)


def publish(batches: Sequence[Batch]) -> None:
    """Send the batches as the real dispatcher does; die before, in the middle or after, or send copies, as the switches say."""
    _die_if("before_publish")
    if _switches.get("die_half_published"):
        _honest_publish(batches[: len(batches) // 2])
        _die_if("half_published")
    for _ in range(int(_switches.get("copies") or 1)):
        _honest_publish(batches)
    _die_if("after_publish")


if __name__ == "__main__":
    dispatch.publish = publish
    sys.exit(dispatch.main())
