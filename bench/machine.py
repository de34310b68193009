"""What the figures were measured on: hardware, versions, commit, and how busy the machine was."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("torch", "sentence-transformers", "celery", "gunicorn", "flask", "sqlalchemy", "psycopg2-binary", "redis")


def describe() -> dict[str, str]:
    """Return the machine and the versions by name, for the head of a report."""
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def load_average() -> float:
    """Return the mean number of processes that wanted to run in the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    folder = Path(__file__).parent
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, check=False, capture_output=True, text=True)
    if run.returncode != 0:
        return "unknown"
    changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=folder, check=False, capture_output=True, text=True).stdout
    return run.stdout.strip() + (" with changes" if changed.strip() else "")
