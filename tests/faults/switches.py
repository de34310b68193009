"""Files by which a test tells the processes under attack how to misbehave; a file is seen at once, in every process."""

import os
from contextlib import suppress
from pathlib import Path

FOLDER_VARIABLE = "NEXUS_FAULTS_FOLDER"
ENCODER_VARIABLE = "NEXUS_FAULTS_ENCODER"

BEAT_SECONDS = 2
"""How often a beat under attack ticks."""

POISONS = ("raise", "memory", "kill", "hang", "nan", "dimension")
"""What a text can do to its encoder; it carries the mark of `poison`."""


def poison(kind: str) -> str:
    """Return the mark that makes a text poisonous."""
    return f"poison-{kind}"


class Switches:
    """The switches of one folder.

    Args:
        folder: Shared by the test and the processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_this_process(cls) -> "Switches":
        """Return the switches that this process was started with."""
        return cls(Path(os.environ[FOLDER_VARIABLE]))

    def set(self, name: str, value: str = "on") -> None:
        """Turn a switch on, in one step."""
        half = self._folder / f".{name}.{os.getpid()}"
        half.write_text(value, encoding="utf-8")
        half.replace(self._folder / name)

    def clear(self, *names: str) -> None:
        """Turn switches off, all of them when none is named."""
        for path in [self._folder / name for name in names] or list(self._folder.iterdir()):
            path.unlink(missing_ok=True)

    def get(self, name: str) -> str | None:
        """Return a switch's value, None when it is off."""
        try:
            return (self._folder / name).read_text(encoding="utf-8")
        except OSError:
            return None

    def take(self, name: str) -> str | None:
        """Turn a switch off and return the value it had; one process alone gets it."""
        value = self.get(name)
        with suppress(OSError):
            (self._folder / name).rename(self._folder / f".taken.{name}.{os.getpid()}")
            return value
        return None
