"""The record of reconciliation, for whoever may only look."""

from app.db import Database
from app.reconcile import repository
from app.reconcile.repository import Run

__all__ = ["Run", "RunHistory"]


class RunHistory:
    """Reads what runs have found.

    Args:
        database: Logged in as nexus_app or nexus_worker.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, most: int) -> list[Run]:
        """Return the latest runs, the latest first; empty when there was none."""
        with self._database.transaction() as connection:
            return repository.runs(connection, most)
