"""The lock that makes one process the owner of a DATA_DIR."""

import fcntl
import os
from pathlib import Path

from app.errors import StackError


class OwnerLock:
    """A lock that the kernel releases when its holder dies, however it dies.

    Args:
        path: The lock file; it is never removed, because removing a locked file lets two owners in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock and write this process's id into the file.

        Raises:
            StackError: Another live process owns it; the message says which and what to do.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StackError(
                f"a stack already runs on {self._path.parent} (process {owner_pid(self._path) or 'unknown'}); "
                "`python -m app stack down` stops it, or set DATA_DIR and PORT for a second one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def owner_pid(path: Path) -> int | None:
    """Return the id of the live process that holds the lock, or None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace")
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)
