"""The database made ready for a starting stack: bootstrap, migrations, the first key."""

from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.database_setup import bootstrap, ensure_first_keys, migrate
from app.errors import StackError


def prepare(settings: Settings, superuser_dsn: str | None) -> None:
    """Bring the database to the newest schema; without effect when it is there already.

    Args:
        settings: With the address of the running server.
        superuser_dsn: URL of the embedded cluster's superuser. None for an external server, whose
            database, roles and extension are its operator's to make.

    Raises:
        StackError: The server refused; the message says in which step.
    """
    step = "the bootstrap of the embedded database"
    try:
        if superuser_dsn is not None:
            bootstrap(settings, superuser_dsn)
        step = "the migration of the database"
        migrate(settings)
        step = "storing the first keys"
        ensure_first_keys(settings)
    except SQLAlchemyError as error:
        # The first line only: the rest of such a message is the statement and its values.
        reason = (str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__])[0]
        hint = "" if superuser_dsn else "; for DATABASE_URL the operator makes database, roles and the extension vector first"
        raise StackError(f"{step} failed: {reason}{hint}") from error
