"""Runs the SQL objects of a revision from their files, each of which is never edited once released."""

from pathlib import Path

from alembic import op

_FOLDER = Path(__file__).parent / "sql"


def run_files(*names: str) -> None:
    """Execute the named files of migrations/sql in the given order, in the revision's transaction."""
    for name in names:
        # exec_driver_sql: the files hold colons and percent signs that text() would take for parameters.
        op.get_bind().exec_driver_sql((_FOLDER / f"{name}.sql").read_text(encoding="utf-8").replace("%", "%%"))
