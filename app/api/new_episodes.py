"""From a validated body to the episode that the service stores."""

import hashlib
import re

import orjson
from flask import request

from app.api.schemas.episodes import EpisodeBody
from app.episodes.models import NewEpisode
from app.errors import InvalidRequest

_OMITTED = {"agent_id", "idempotency_key"}
_IDEMPOTENCY_KEY = re.compile(r"(?=.*\S)[\x20-\x7e]{1,256}\Z")


def request_sha256(body: EpisodeBody) -> bytes:
    """Return the digest by which a repeated request is told from another one under the same idempotency key.

    It covers what the body says beyond the defaults, in JSON with sorted keys: leaving a field out
    and sending its default are the same request, and a field added later changes no old digest.
    """
    said = body.model_dump(exclude=_OMITTED, exclude_defaults=True)
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()


def idempotency_key(body: EpisodeBody) -> str | None:
    """Return the key from the header or the body, None when neither has one.

    Raises:
        InvalidRequest: The header is malformed, or the two differ.
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return body.idempotency_key
    if not _IDEMPOTENCY_KEY.match(header):
        raise InvalidRequest("Idempotency-Key must have 1 to 256 printable ASCII characters")
    if body.idempotency_key is not None and body.idempotency_key != header:
        raise InvalidRequest("Idempotency-Key and idempotency_key differ; send one")
    return header


def to_new_episode(body: EpisodeBody, key: str | None) -> NewEpisode:
    """Return the episode to store, with `key` as its idempotency key.

    The content that came in action_details is kept once, as the content: a copy in the details
    would outlive an edit.
    """
    content = body.content or ""
    details = body.action_details
    if details is not None and details.get("content") == content:
        details = {name: value for name, value in details.items() if name != "content"}
    return NewEpisode(
        action_type=body.action_type,
        content=content,
        actor=body.actor,
        session_id=body.session_id,
        tags=tuple(body.tags),
        importance_score=float(body.importance_score),
        occurred_at=body.occurred_at,
        metadata=body.metadata,
        action_details=details,
        context_state=body.context_state,
        project=body.project,
        language=body.language,
        idempotency_key=key,
        request_sha256=request_sha256(body),
    )
