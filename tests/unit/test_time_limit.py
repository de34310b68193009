"""The time limit of a batch: how long it is, and that it ends a process that nothing in Python could end."""

import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from app.config import Settings
from app.queue.models import Batch, Claim
from tasks.time_limit import ENDED_BY, ends_process_after, time_limit_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("chars", "seconds"), [(0, 300), (16_000, 300), (16_001, 300.01), (200_000, 2_140)])
def test_limit_grows_with_what_is_beyond_a_batch(chars: int, seconds: float) -> None:
    claim = Claim("episodic", 1, (uuid4(),), uuid4())
    assert time_limit_of(Batch("embed.bulk", claim, chars), Settings()) == pytest.approx(seconds)


def test_process_that_is_stuck_without_python_is_ended() -> None:
    # The match backtracks for hours, and no other thread of the process runs meanwhile.
    program = (
        "import re\nfrom tasks.time_limit import ends_process_after\nwith ends_process_after(0.2):\n    re.match('(a+)+$', 'a' * 50 + 'b')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=30)
    assert done.returncode == -signal.SIGALRM
    assert ENDED_BY == "SIGALRM"


def test_process_that_is_in_time_goes_on() -> None:
    with ends_process_after(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
