"""Sessions of people at the console: begun with a good key, and over as soon as the key or the session is."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from app.audit import is_recorded_lately, record
from app.db import Database
from app.db_wait import answers_within
from app.errors import Unauthenticated
from app.identity import repository
from app.identity.models import ApiKey, Principal

SESSION_HOURS = 12
"""The longest life of a session."""

SIGNED_IN = "sign in"
SIGNED_OUT = "sign out"
_MARGIN_HOURS = 1  # Between the clock that dates a session and the one that dates its end.
_LOOKUP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in: the session's id, its key's id, and when it began (aware UTC). It holds no secret."""

    session_id: UUID
    key_id: UUID
    began_at: datetime


class SessionService:
    """Begins, looks up and ends sessions.

    A session is no row of its own: whoever keeps it keeps it signed, its key says whether it still holds, and the audit log says
    whether somebody has signed out. So it holds over all processes, and nothing is left to be cleared.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, principal: Principal) -> Session:
        """Return a new session of the caller's; it stands in the audit log."""
        session = Session(uuid4(), principal.key_id, datetime.now(UTC))
        with self._database.transaction() as connection:
            record(connection, session.key_id, SIGNED_IN, str(session.session_id), {"role": principal.role})
        return session

    def key_of(self, session: Session) -> ApiKey:
        """Return the key of a session that holds; asked anew each time, so that a revoked key ends its sessions at once.

        Raises:
            Unauthenticated: It is too old, somebody signed out, or its key is revoked, expired or gone.
            DatabaseUnavailable: The key cannot be looked up.
        """
        now = datetime.now(UTC)
        if (now - session.began_at).total_seconds() > SESSION_HOURS * 3600:
            raise Unauthenticated("the session has ended; sign in again")
        with answers_within(_LOOKUP_SECONDS), self._database.transaction() as connection:
            key = repository.find_by_id(connection, session.key_id)
            hours = SESSION_HOURS + _MARGIN_HOURS
            if key is None or not key.is_usable(now) or is_recorded_lately(connection, SIGNED_OUT, str(session.session_id), hours):
                raise Unauthenticated("the session has ended; sign in again")
            repository.touch(connection, key.key_id)
        return key

    def end(self, session: Session) -> None:
        """End a session everywhere, also for whoever copied it; it stands in the audit log."""
        with self._database.transaction() as connection:
            record(connection, session.key_id, SIGNED_OUT, str(session.session_id), {})
