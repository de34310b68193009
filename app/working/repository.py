"""All SQL on working memory. What has expired counts as absent, whether or not it has been swept yet."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.working.models import ContextPosition, ContextView, NewContext

_COLUMNS = "agent_id, context_id, seq, session_id, context_type, active_content, priority, ttl_seconds, expires_at, created_at, updated_at"
_LIVE = "(w.expires_at IS NULL OR w.expires_at > now())"

# A row that has expired and is not swept yet gives way as if it were not there.
_PUT = text(
    f"""
    INSERT INTO nexus_memory.working_memory_contexts AS w
        (agent_id, context_id, session_id, context_type, active_content, priority, ttl_seconds, expires_at)
    VALUES (:agent_id, :context_id, :session_id, :context_type, CAST(:active_content AS jsonb), :priority,
            CAST(:ttl_seconds AS integer), now() + make_interval(secs => CAST(:ttl_seconds AS integer)))
    ON CONFLICT (agent_id, context_id) DO UPDATE
        SET session_id = excluded.session_id, context_type = excluded.context_type, active_content = excluded.active_content,
            priority = excluded.priority, ttl_seconds = excluded.ttl_seconds, expires_at = excluded.expires_at, updated_at = now(),
            created_at = CASE WHEN {_LIVE} THEN w.created_at ELSE now() END
        WHERE CAST(:may_replace AS boolean) OR NOT {_LIVE}
    RETURNING {_COLUMNS}, created_at = now() AS is_new
    """
)
_GET = text(
    f"SELECT {_COLUMNS} FROM nexus_memory.working_memory_contexts w WHERE agent_id = :agent_id AND context_id = :context_id AND {_LIVE}"
)
_REFRESH = text(
    f"""
    UPDATE nexus_memory.working_memory_contexts w SET expires_at = now() + make_interval(secs => w.ttl_seconds)
    WHERE agent_id = :agent_id AND context_id = :context_id AND {_LIVE} AND w.ttl_seconds IS NOT NULL
    RETURNING {_COLUMNS}
    """
)
_DELETE = text(
    f"""
    DELETE FROM nexus_memory.working_memory_contexts w WHERE agent_id = :agent_id AND context_id = :context_id
    RETURNING {_LIVE} AS was_live
    """
)
_RANK = "array_position(ARRAY['low', 'normal', 'high', 'critical'], w.priority)"
_LIST = text(
    f"""
    SELECT {_COLUMNS} FROM nexus_memory.working_memory_contexts w
    WHERE agent_id = :agent_id AND {_LIVE}
      AND (CAST(:session_id AS text) IS NULL OR w.session_id = :session_id)
      AND (CAST(:context_type AS text) IS NULL OR w.context_type = :context_type)
      AND (CAST(:priority AS text) IS NULL OR w.priority = :priority)
      AND (CAST(:after_seq AS bigint) IS NULL OR ({_RANK}, w.seq) < (CAST(:after_rank AS integer) + 1, CAST(:after_seq AS bigint)))
    ORDER BY {_RANK} DESC, w.seq DESC LIMIT :most
    """
)
_MANY = text(
    f"SELECT {_COLUMNS} FROM nexus_memory.working_memory_contexts w"
    f" WHERE agent_id = :agent_id AND context_id = ANY (:context_ids) AND {_LIVE}"
)
_NOTE_CACHED = text(
    "UPDATE nexus_memory.working_memory_contexts SET cache_sha1 = :cache_sha1 WHERE agent_id = :agent_id AND context_id = :context_id"
)


def put(
    connection: Connection, agent_id: str, context_id: str, context: NewContext, *, may_replace: bool
) -> tuple[ContextView, bool] | None:
    """Store a context and return (what is stored, whether it is new); None when a live one is there and may not be replaced."""
    row = connection.execute(
        _PUT,
        {
            "agent_id": agent_id,
            "context_id": context_id,
            "session_id": context.session_id,
            "context_type": context.context_type,
            "active_content": orjson.dumps(context.active_content).decode(),
            "priority": context.priority,
            "ttl_seconds": context.ttl_seconds,
            "may_replace": may_replace,
        },
    ).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    is_new = values.pop("is_new")
    return ContextView(**values), is_new


def note_cached(connection: Connection, agent_id: str, context_id: str, cache_sha1: bytes) -> None:
    """Say which bytes Redis should hold of the context that this transaction wrote."""
    connection.execute(_NOTE_CACHED, {"agent_id": agent_id, "context_id": context_id, "cache_sha1": cache_sha1})


def get(connection: Connection, agent_id: str, context_id: str) -> ContextView | None:
    """Return a live context, or None."""
    row = connection.execute(_GET, {"agent_id": agent_id, "context_id": context_id}).one_or_none()
    return None if row is None else _view(row)


def get_many(connection: Connection, agent_id: str, context_ids: Sequence[str]) -> dict[str, ContextView]:
    """Return those of the named contexts that are live, by id."""
    rows = connection.execute(_MANY, {"agent_id": agent_id, "context_ids": list(context_ids)})
    return {row.context_id: _view(row) for row in rows}


def refresh(connection: Connection, agent_id: str, context_id: str) -> ContextView | None:
    """Let a live context live for its whole time again, and return it; None when there is none, or it never ends."""
    row = connection.execute(_REFRESH, {"agent_id": agent_id, "context_id": context_id}).one_or_none()
    return None if row is None else _view(row)


def delete(connection: Connection, agent_id: str, context_id: str) -> bool:
    """Delete a context and return whether it was live."""
    return bool(connection.execute(_DELETE, {"agent_id": agent_id, "context_id": context_id}).scalar_one_or_none())


def list_page(
    connection: Connection,
    agent_id: str,
    *,
    session_id: str | None,
    context_type: str | None,
    priority: str | None,
    most: int,
    after: ContextPosition | None,
) -> list[ContextView]:
    """Return live contexts, the most important first and the newest first among equals; empty when there is none."""
    rows = connection.execute(
        _LIST,
        {
            "agent_id": agent_id,
            "session_id": session_id,
            "context_type": context_type,
            "priority": priority,
            "most": most,
            "after_rank": after.rank if after else None,
            "after_seq": after.seq if after else None,
        },
    )
    return [_view(row) for row in rows]


def _view(row: Any) -> ContextView:
    return ContextView(**row._mapping)
