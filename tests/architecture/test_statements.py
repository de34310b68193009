"""Every SQL statement of the code names relations, columns and functions that exist after the migrations."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

import app
from tests.factories.statements import Sql

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


_HOLD_SQL = {
    "audit",
    "copies",
    "database_setup",
    "db",
    "dead",
    "health",
    "migration",
    "model_schema",
    "model_status",
    "repository",
    "service",
    "stats",
    "status",
    "workers",
}


def clauses(value: object, name: str) -> Iterator[tuple[str, TextClause]]:
    if isinstance(value, TextClause):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from clauses(inner, f"{name}[{key}]")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from clauses(inner, f"{name}[{number}]")


def statements() -> Iterator[tuple[str, str]]:
    """Yield each text() of a module of app, by name, with $1 for parameters."""
    for info in pkgutil.walk_packages(app.__path__, "app."):
        if info.name.rpartition(".")[2] not in _HOLD_SQL:
            continue
        module = importlib.import_module(info.name)
        for attribute, value in vars(module).items():
            for name, clause in clauses(value, f"{info.name}.{attribute}"):
                # A SET names no relation and cannot be prepared.
                if not clause.text.lstrip().startswith("SET "):
                    yield name, str(clause.compile(dialect=_DIALECT))


FOUND = sorted(set(statements()))


def test_statements_were_found() -> None:
    assert len(FOUND) > 40


@pytest.mark.parametrize(("name", "statement"), FOUND, ids=[name for name, _ in FOUND])
def test_statement_can_be_prepared(name: str, statement: str, catalogue: Sql) -> None:
    catalogue(f"PREPARE checked AS {statement}")
    catalogue("DEALLOCATE checked")
