"""What became of a file of memories, line by line."""

from collections import Counter
from dataclasses import dataclass, field

_MOST_ERRORS = 100


@dataclass(frozen=True, slots=True)
class LineError:
    """Why one line was not stored; `status` and `code` are what a request for it alone would be answered."""

    line: int
    kind: str | None
    status: int
    code: str
    detail: str


@dataclass(slots=True)
class ImportReport:
    """What became of a file.

    `imported` were stored now, `unchanged` were there already and equal, `expired` are working memories whose time is over; all by
    kind. `failed` counts the other lines, of which `errors` has the first hundred. `is_complete` says whether the file had its end line,
    and as many lines of each kind as that says.
    """

    lines: int = 0
    imported: Counter[str] = field(default_factory=Counter)
    unchanged: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    errors: list[LineError] = field(default_factory=list)
    is_complete: bool = False

    def fail(self, error: LineError) -> None:
        """Count a line that was not stored."""
        self.failed += 1
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(error)

    def add_failures(self, other: "ImportReport") -> None:
        """Count the failures of another report too; not all of those are named."""
        self.failed += other.failed
        self.errors.extend(other.errors[: _MOST_ERRORS - len(self.errors)])


class Refused(Exception):
    """One line cannot be stored; see LineError."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail

    def of(self, line: int, kind: str | None) -> LineError:
        """Return the error of the line of a number."""
        return LineError(line, kind, self.status, self.code, self.detail)
