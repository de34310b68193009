"""An agent's whole memory as NDJSON, page by page: memory stays bounded however much there is."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

import orjson

from app.audit import record
from app.db import Database
from app.transfer import repository
from app.transfer.models import FORMAT, KINDS, VERSION

_LINES_A_PAGE = 200


class ExportService:
    """Writes exports.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def lines(
        self, agent_id: str, when_read: Callable[[int], None] = lambda _: None, *, by: UUID | None = None, is_own: bool = False
    ) -> Iterator[bytes]:
        """Yield a header, then every memory that was committed before this was called, then an end line with the counts.

        Each page is a short transaction of its own, so a slow reader holds nothing; what changes meanwhile is exported as it is when
        its page is read. Each line ends in a newline. A reader that finds no end line has read a part only.

        Args:
            agent_id: Whose.
            when_read: Told after each page how many lines it had.
            by: The key that asks for it, for the audit log; None for the command line.
            is_own: Whether that key is bound to the agent; then the audit log does not tell of it.

        Raises:
            DatabaseUnavailable: Before the first line, or in the middle.
        """
        with self._database.transaction(agent_id) as connection:
            last = {kind: repository.last_position(connection, agent_id, kind) for kind in KINDS}
            if not is_own:
                record(connection, by, "export agent", agent_id, {})
        return self._lines(agent_id, last, when_read)

    def _lines(self, agent_id: str, last: dict[str, repository.Position], when_read: Callable[[int], None]) -> Iterator[bytes]:
        header = {"type": "header", "format": FORMAT, "version": VERSION, "agent_id": agent_id, "exported_at": datetime.now(UTC)}
        yield orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE)
        counts = dict.fromkeys(KINDS, 0)
        for kind in KINDS:
            for page in self._pages(agent_id, kind, last[kind]):
                counts[kind] += len(page)
                when_read(len(page))
                yield "".join(f"{line}\n" for line in page).encode()
        yield orjson.dumps({"type": "end", "agent_id": agent_id, "counts": counts}, option=orjson.OPT_APPEND_NEWLINE)

    def _pages(self, agent_id: str, kind: str, last: repository.Position) -> Iterator[list[str]]:
        after: repository.Position | None = None
        while True:
            with self._database.transaction(agent_id) as connection:
                found = repository.page(connection, agent_id, kind, after=after, last=last, most=_LINES_A_PAGE)
            if not found:
                return
            after = found[-1][0]
            yield [line for _, line in found]
