"""The one exception tree: every failure a caller can meet, with a stable code and no knowledge of HTTP."""

from collections.abc import Sequence
from typing import Any


class NexusError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        message: What happened and what the reader can do about it. Never holds memory content or a secret.
        details: JSON-ready facts for a program, for example the indexes of bad items.
    """

    code = "internal_error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(NexusError):
    """The caller's input is wrong; repeating it unchanged cannot succeed."""

    code = "invalid_request"


class MalformedBody(InvalidRequest):
    """The body is not the JSON object that the endpoint takes."""

    code = "malformed_json"


class ContentTooLarge(InvalidRequest):
    """The content is longer than an episode may be."""

    code = "content_too_large"


class InvalidItems(InvalidRequest):
    """Items of a batch are wrong; `errors` names each by its index."""

    code = "invalid_items"

    def __init__(self, message: str, errors: Sequence[dict[str, Any]]) -> None:
        super().__init__(message, errors=list(errors))


class Unauthenticated(NexusError):
    """No key, or a key that is unknown, revoked or expired."""

    code = "unauthenticated"


class PermissionDenied(NexusError):
    """The key is good and may not do this."""

    code = "permission_denied"


class NotFound(NexusError):
    """There is no such thing, or it belongs to another agent: the two are not told apart."""

    code = "not_found"


class Conflict(NexusError):
    """The request contradicts what is stored."""

    code = "conflict"


class IdempotencyMismatch(Conflict):
    """The idempotency key was used before with another body."""

    code = "idempotency_key_reused"


class BlockReadOnly(Conflict):
    """A memory block is fixed."""

    code = "block_read_only"


class Gone(NexusError):
    """It existed and was deleted."""

    code = "gone"


class RateLimited(NexusError):
    """The key has made as many requests as it may for now."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_seconds: int = 60) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(NexusError):
    """A part that the request needs is not there now; the same request can succeed later."""

    code = "unavailable"
    retry_after_seconds = 2


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be reached, or it gave up; nothing was stored."""

    code = "database_unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The connection to PostgreSQL broke during a commit: everything was stored, or nothing."""


class DeadlockVictim(DatabaseUnavailable):
    """PostgreSQL ended this transaction because it and another waited for each other; nothing was stored, and at once it can be."""


class EncoderUnavailable(Unavailable):
    """The embedding model is not loaded (yet)."""

    code = "encoder_unavailable"


class ConfigurationError(NexusError):
    """The process cannot start as it is configured; the message lists every problem."""

    code = "configuration_error"


class StackError(NexusError):
    """The embedded stack could not be started, stopped or found."""

    code = "stack_error"
