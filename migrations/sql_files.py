"""Runs the SQL objects of a revision from their files, each of which is never edited once released."""

import re
from pathlib import Path

from alembic import op

_FOLDER = Path(__file__).parent / "sql"
# A line `-- include part_x_v1`, with or without a semicolon, stands for the text of that file: what functions say alike is written once.
_INCLUDE = re.compile(r"^ *-- include (part_\w+)(;?)$", re.MULTILINE)


def run_files(*names: str) -> None:
    """Execute the named files of migrations/sql in the given order, in the revision's transaction."""
    for name in names:
        _execute(_read(name))


def replace_as_definer(*names: str) -> None:
    """Replace functions that the definer owns by those in the named files, whichever version they are; owner and grants stay."""
    op.execute("GRANT CREATE ON SCHEMA nexus_memory, memory_system TO nexus_definer")
    op.execute("SET LOCAL ROLE nexus_definer")
    for name in names:
        _execute(_read(name).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    op.execute("RESET ROLE")
    op.execute("REVOKE CREATE ON SCHEMA nexus_memory, memory_system FROM nexus_definer")


def as_definer(statement: str) -> None:
    """Execute a statement as the definer, which alone may grant what it owns."""
    op.execute("SET LOCAL ROLE nexus_definer")
    op.execute(statement)
    op.execute("RESET ROLE")


def _read(name: str) -> str:
    text = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda include: _read(include[1]).rstrip("\n") + include[2], text)


def _execute(statements: str) -> None:
    # exec_driver_sql: the files hold colons and percent signs that text() would take for parameters.
    op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
