"""Alembic's environment: runs revisions as the owner of the tables, over a connection that the caller passes."""

from alembic import context

from app.config import load_settings
from app.db import Database
from app.metadata import INCLUDED_SCHEMAS, metadata


def _include_name(name: str | None, type_: str, parent_names: object) -> bool:
    """Compare the service's own schemas only."""
    return type_ != "schema" or name in INCLUDED_SCHEMAS


def _run(connection: object) -> None:
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=metadata,
        include_schemas=True,
        include_name=_include_name,
        compare_type=True,
        compare_server_default=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def run() -> None:
    """Use the caller's connection, or log in as nexus_superuser by the settings."""
    given = context.config.attributes.get("connection")
    if given is not None:
        _run(given)
        return
    database = Database(load_settings(), "nexus_superuser", "nexus migrations")
    try:
        with database.engine.connect() as connection:
            _run(connection)
            connection.commit()
    finally:
        database.close()


run()
