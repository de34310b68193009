"""Statements by hand, past the service: for faults, and for looking at what is really stored."""

from dataclasses import dataclass
from typing import Any, TextIO

from psycopg2 import extensions

from app import db_wait

TRIGGERS_OFF, TRIGGERS_ON = "SET session_replication_role = replica", "SET session_replication_role = origin"
"""Statements of a superuser's session that make what follows go past the triggers, as a restored dump does, and end that."""


@dataclass(frozen=True)
class Sql:
    """Runs one statement at a time over one connection in autocommit and returns its rows."""

    connection: extensions.connection

    def __call__(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement with %s parameters; empty for one that returns no rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def one(self, statement: str, *parameters: Any) -> Any:
        """Return the only column of the only row."""
        ((value,),) = self(statement, *parameters)
        return value


def copy_in(connection: extensions.connection, statement: str, lines: TextIO) -> None:
    """Run a COPY FROM STDIN. psycopg2 has none while answers are waited for by a callback, which is the process's."""
    extensions.set_wait_callback(None)
    try:
        with connection.cursor() as cursor:
            cursor.copy_expert(statement, lines)
    finally:
        db_wait.install()
