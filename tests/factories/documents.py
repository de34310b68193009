"""Reads the commands and answers that the documents show, so that tests can hold them to the truth."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HTTP_MARK = re.compile(r"# (\d{3})(?: (\w+))?\Z")
_EXIT_MARK = re.compile(r"# exit (\d+)\Z")
SET_UP_MARK = "# set-up"


@dataclass(frozen=True)
class Example:
    """A block of shell commands whose first line says what comes of it.

    Attributes:
        line: Where it stands, for messages.
        commands: The block.
        status: HTTP status of the last request; None for a block that only sets up, or that says an exit status.
        code: `code` of the problem that comes back, None when none is said.
        exit_status: Exit status of the last command; None when none is said.
        answer: The JSON that the document shows right after the block, None when it shows none.
        output: Lines that the document shows right after the block as `text`; empty when it shows none.
    """

    line: int
    commands: str
    status: int | None = None
    code: str | None = None
    exit_status: int | None = None
    answer: Any = None
    output: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a test of this block is called."""
        outcome = self.status or (f"exit-{self.exit_status}" if self.exit_status is not None else "set-up")
        return "-".join(filter(None, (f"line{self.line}", str(outcome), self.code)))


def examples(document: str) -> list[Example]:
    """Return the marked blocks of a document in order; blocks without a mark are prose and are left out.

    Args:
        document: Path inside the repository.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found = []
    for index, fence in enumerate(fences):
        language, body = fence.groups()
        if language != "bash":
            continue
        following = fences[index + 1] if index + 1 < len(fences) else None
        example = _example(text.count("\n", 0, fence.start()) + 1, body)
        if example is None:
            continue
        if following is not None and _is_next(text[fence.end() : following.start()]):
            if following[1] == "json" and example.status is not None:
                example = replace(example, answer=json.loads(following[2]))
            elif following[1] == "text":
                example = replace(example, output=tuple(filter(str.strip, following[2].splitlines())))
        found.append(example)
    return found


def _is_next(between: str) -> bool:
    """Return whether an answer still belongs to the block before it: at most one paragraph and no heading lie between."""
    return "\n#" not in between and len(between.strip().split("\n\n")) <= 1


def _example(line: int, body: str) -> Example | None:
    mark = body.partition("\n")[0].strip()
    if mark == SET_UP_MARK:
        return Example(line, body)
    if (http := _HTTP_MARK.match(mark)) is not None:
        return Example(line, body, status=int(http[1]), code=http[2])
    if (exit_mark := _EXIT_MARK.match(mark)) is not None:
        return Example(line, body, exit_status=int(exit_mark[1]))
    return None


def difference(shown: Any, real: Any, place: str = "") -> str | None:
    """Return where the fields of a shown answer are not those of the real one, None where they agree.

    Values may differ, null may stand for anything, and of a list the first elements are compared.
    """
    if isinstance(shown, dict) and isinstance(real, dict):
        if shown.keys() != real.keys():
            return f"{place or 'answer'}: shown {sorted(shown)}, real {sorted(real)}"
        return next(filter(None, (difference(shown[name], real[name], f"{place}.{name}") for name in shown)), None)
    if isinstance(shown, list) and isinstance(real, list):
        if bool(shown) != bool(real):
            return f"{place}: one list is empty"
        return difference(shown[0], real[0], f"{place}[0]") if shown else None
    if shown is None or real is None or isinstance(shown, dict | list) == isinstance(real, dict | list):
        return None
    return f"{place}: shown {type(shown).__name__}, real {type(real).__name__}"


def unlike(shown: Iterable[str], real: str) -> list[str]:
    """Return the shown lines that did not come back, numbers, ids, times and spaces aside."""
    came = {_shape(line) for line in real.splitlines()}
    return [line for line in shown if _shape(line) not in came]


def _shape(line: str) -> str:
    return " ".join("#" if any(character.isdigit() for character in word) else word for word in line.split())
