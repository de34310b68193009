"""All SQL on episodes, projects and the receipts that the ledger keeps of them, but that of changes."""

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from app.episodes.models import EpisodeFilters, EpisodeView, NewEpisode, Position, Project, Receipt

# One statement for one episode and for a thousand. The ids are the caller's, so that each receipt finds its item again;
# ORDER BY makes seq follow the order of the items.
_INSERT = text(
    """
    INSERT INTO nexus_memory.zep_episodic_memory
        (episode_id, agent_id, session_id, actor, action_type, content, "timestamp", importance_score, tags, metadata,
         action_details, context_state, project_id, language, idempotency_key, request_sha256)
    SELECT i.episode_id, :agent_id, i.session_id, i.actor, i.action_type, i.content, coalesce(i.occurred_at, now()),
           i.importance_score, i.tags, i.metadata, i.action_details, i.context_state, i.project_id, i.language,
           i.idempotency_key, decode(i.request_sha256, 'hex')
    FROM ROWS FROM (jsonb_to_recordset(CAST(:items AS jsonb)) AS (
        episode_id uuid, session_id text, actor text, action_type text, content text, occurred_at timestamptz,
        importance_score double precision, tags text[], metadata jsonb, action_details jsonb, context_state jsonb,
        project_id uuid, language text, idempotency_key text, request_sha256 text)) WITH ORDINALITY
        AS i (episode_id, session_id, actor, action_type, content, occurred_at, importance_score, tags, metadata, action_details,
              context_state, project_id, language, idempotency_key, request_sha256, position)
    ORDER BY i.position
    ON CONFLICT (agent_id, idempotency_key) DO NOTHING
    RETURNING episode_id, seq, version, encode(content_sha256, 'hex') AS content_sha256, receipt_nonce, created_at
    """
)

# No rows, by the way of all that are stored: the triggers run, so that what keeps a row of the queue or of the ledger from being written
# is met too. Whoever waits for a lock gives up soon, and leaves no statement behind that waits on.
_INSERT_NOTHING = text(
    "SET LOCAL lock_timeout = '1s'; INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) SELECT '', '' WHERE false"
)

# The first receipt of each key, also after an edit: it stands in the ledger, not in the row.
_REPLAY = text(
    """
    SELECT e.idempotency_key, e.request_sha256, e.episode_id, l.seq, l.version, encode(l.content_sha256, 'hex') AS content_sha256,
           l.nonce, e.created_at, coalesce(q.state, 'missing') AS embedding_state
    FROM nexus_memory.zep_episodic_memory e
    JOIN memory_system.ledger l ON l.episode_id = e.episode_id AND l.event = 'accepted'
    LEFT JOIN memory_system.embeddings_queue q ON q.target_kind = 'episodic' AND q.target_id = e.episode_id
        AND q.model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)
    WHERE e.agent_id = :agent_id AND e.idempotency_key = ANY (:keys)
    """
)

_TOMBSTONES = text(
    """
    SELECT idempotency_key_sha256 FROM memory_system.ledger
    WHERE agent_id = :agent_id AND event = 'deleted' AND idempotency_key_sha256 = ANY (:hashes)
    """
)

_TAKE_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended('nexus keyed batch ' || :agent_id, 0))")

# Shared with others that store, against whoever forgets the agent: he would delete a project between its finding and its use.
_KEEP_PROJECTS = text("SELECT pg_advisory_xact_lock_shared(hashtextextended('nexus forget ' || :agent_id, 0))")
_MAKE_PROJECTS = text(
    """
    INSERT INTO nexus_memory.projects (agent_id, name) SELECT :agent_id, name FROM unnest(CAST(:names AS text[])) name ORDER BY name
    ON CONFLICT (agent_id, name) DO NOTHING
    """
)
_PROJECT_IDS = text("SELECT name, project_id FROM nexus_memory.projects WHERE agent_id = :agent_id AND name = ANY (:names)")

_VIEW = """
    SELECT e.episode_id, e.seq, e.agent_id, e.session_id, e.actor, e.action_type, e.content, e.version,
           encode(e.content_sha256, 'hex') AS content_sha256, e."timestamp" AS occurred_at, e.importance_score, e.tags, e.metadata,
           e.action_details, e.context_state, p.name AS project, e.language, e.created_at, e.updated_at,
           coalesce(q.state, 'missing') AS embedding_state, coalesce(q.retry_count, 0) AS embedding_attempts,
           q.last_error AS embedding_last_error
    FROM nexus_memory.zep_episodic_memory e
    LEFT JOIN nexus_memory.projects p ON p.project_id = e.project_id
    LEFT JOIN memory_system.embeddings_queue q ON q.target_kind = 'episodic' AND q.target_id = e.episode_id
        AND q.model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)
    WHERE e.agent_id = :agent_id
"""
_GET = text(_VIEW + " AND e.episode_id = :episode_id")
_MANY = text(_VIEW + " AND e.episode_id = ANY (CAST(:episode_ids AS uuid[]))")
_LISTED = text(
    f"""
    SELECT v.* FROM nexus_memory.list_episodes(CAST(:filters AS jsonb), :newest_first, :after_at, :after_seq, :most)
        WITH ORDINALITY AS l (episode_id, position)
    JOIN LATERAL ({_VIEW} AND e.episode_id = l.episode_id) v ON true
    ORDER BY l.position
    """
)

# The operators compare without leaking, so row security lets them use ix_zep_episodic_memory_session.
_AROUND = text(
    f"""
    WITH middle AS (
        SELECT e.session_id, e."timestamp", e.seq FROM nexus_memory.zep_episodic_memory e
        WHERE e.agent_id = :agent_id AND e.episode_id = :episode_id
    ), turns AS (
        (SELECT e.episode_id, true AS is_before, e."timestamp", e.seq FROM middle m JOIN nexus_memory.zep_episodic_memory e
            ON e.session_id = m.session_id AND (e."timestamp", e.seq) < (m."timestamp", m.seq)
         WHERE e.agent_id = :agent_id ORDER BY e."timestamp" DESC, e.seq DESC LIMIT :before)
        UNION ALL
        (SELECT e.episode_id, false, e."timestamp", e.seq FROM middle m JOIN nexus_memory.zep_episodic_memory e
            ON e.session_id = m.session_id AND (e."timestamp", e.seq) > (m."timestamp", m.seq)
         WHERE e.agent_id = :agent_id ORDER BY e."timestamp", e.seq LIMIT :after)
    )
    SELECT t.is_before, v.* FROM turns t JOIN LATERAL ({_VIEW} AND e.episode_id = t.episode_id) v ON true ORDER BY t."timestamp", t.seq
    """
)

_PROJECTS = text(
    """
    SELECT p.project_id, p.name, p.created_at, count(e.episode_id) AS episode_count
    FROM nexus_memory.projects p
    LEFT JOIN nexus_memory.zep_episodic_memory e ON e.agent_id = p.agent_id AND e.project_id = p.project_id
    WHERE p.agent_id = :agent_id GROUP BY p.project_id ORDER BY p.name
    """
)
_WAS_DELETED = text(
    "SELECT 1 FROM memory_system.ledger WHERE agent_id = :agent_id AND episode_id = :episode_id AND event = 'deleted' LIMIT 1"
)
_ALL_OPEN = text(
    "SELECT count(*) FROM memory_system.embeddings_queue"
    " WHERE agent_id = :agent_id AND state IN ('pending', 'processing') AND target_kind = 'episodic'"
    " AND model_id = (SELECT m.model_id FROM memory_system.embedding_models m WHERE m.is_active)"
)


def take_turn(connection: Connection, agent_id: str) -> None:
    """Wait until no other batch with idempotency keys of the agent is in flight.

    Two of them with the same keys in different orders would each wait for a key of the other.
    """
    connection.execute(_TAKE_TURN, {"agent_id": agent_id})


def try_to_write(connection: Connection) -> None:
    """Do nothing where an episode could be stored.

    Raises:
        OperationalError: Somebody holds a lock that writing needs.
        InternalError: The server is read-only.
    """
    connection.execute(_INSERT_NOTHING)


def insert(
    connection: Connection, agent_id: str, items: Sequence[tuple[UUID, NewEpisode]], projects: dict[str, UUID]
) -> dict[UUID, Receipt]:
    """Insert episodes in order and return the receipts of those inserted, by id.

    An item whose idempotency key the agent has used already is left out, also when the earlier one is in the same call.
    Waits for a concurrent insert of the same key to commit or roll back.
    """
    rows = [
        {
            "episode_id": episode_id,
            "session_id": item.session_id,
            "actor": item.actor,
            "action_type": item.action_type,
            "content": item.content,
            "occurred_at": item.occurred_at,
            "importance_score": item.importance_score,
            "tags": item.tags,
            "metadata": item.metadata,
            "action_details": item.action_details,
            "context_state": item.context_state,
            "project_id": projects[item.project] if item.project else None,
            "language": item.language,
            "idempotency_key": item.idempotency_key,
            "request_sha256": item.request_sha256.hex(),
        }
        for episode_id, item in items
    ]
    result = connection.execute(_INSERT, {"agent_id": agent_id, "items": orjson.dumps(rows).decode()})
    return {
        row.episode_id: Receipt(
            row.episode_id, row.seq, row.version, agent_id, row.content_sha256, row.receipt_nonce.hex, row.created_at, "pending"
        )
        for row in result
    }


def find_replayed(connection: Connection, agent_id: str, keys: Sequence[str]) -> dict[str, tuple[bytes, Receipt]]:
    """Return, by idempotency key, the hash of the first request and its receipt; keys never used are absent."""
    rows = connection.execute(_REPLAY, {"agent_id": agent_id, "keys": list(keys)})
    return {
        row.idempotency_key: (
            bytes(row.request_sha256 or b""),
            Receipt(
                row.episode_id,
                row.seq,
                row.version,
                agent_id,
                row.content_sha256,
                row.nonce.hex,
                row.created_at,
                row.embedding_state,
                replayed=True,
            ),
        )
        for row in rows
    }


def find_tombstones(connection: Connection, agent_id: str, keys: Sequence[str]) -> set[str]:
    """Return those of the idempotency keys whose episode was deleted."""
    by_hash = {hashlib.sha256(key.encode()).digest(): key for key in keys}
    rows = connection.execute(_TOMBSTONES, {"agent_id": agent_id, "hashes": list(by_hash)})
    return {by_hash[bytes(row[0])] for row in rows}


def ensure_projects(connection: Connection, agent_id: str, names: set[str]) -> dict[str, UUID]:
    """Return the id of each named project of the agent, making those that are missing.

    Until the transaction ends nobody forgets the agent; call it before any row is locked.
    """
    if not names:
        return {}
    parameters = {"agent_id": agent_id, "names": sorted(names)}
    connection.execute(_KEEP_PROJECTS, {"agent_id": agent_id})
    connection.execute(_MAKE_PROJECTS, parameters)
    return {row.name: row.project_id for row in connection.execute(_PROJECT_IDS, parameters)}


def _view(row: Any) -> EpisodeView:
    return EpisodeView(**row._mapping)


def get(connection: Connection, agent_id: str, episode_id: UUID) -> EpisodeView | None:
    """Return one episode of the agent, or None."""
    row = connection.execute(_GET, {"agent_id": agent_id, "episode_id": episode_id}).one_or_none()
    return _view(row) if row is not None else None


def get_many(connection: Connection, agent_id: str, episode_ids: Sequence[UUID]) -> dict[UUID, EpisodeView]:
    """Return those of the named episodes that the agent has, by id."""
    rows = connection.execute(_MANY, {"agent_id": agent_id, "episode_ids": list(map(str, episode_ids))})
    return {row.episode_id: _view(row) for row in rows}


def was_deleted(connection: Connection, agent_id: str, episode_id: UUID) -> bool:
    """Return whether the agent once had this episode and deleted it."""
    return connection.execute(_WAS_DELETED, {"agent_id": agent_id, "episode_id": episode_id}).first() is not None


def list_page(
    connection: Connection, agent_id: str, filters: EpisodeFilters, most: int, *, newest_first: bool = True, after: Position | None = None
) -> list[EpisodeView]:
    """Return the agent's episodes that pass the filters, by occurred_at then seq; empty when there is none.

    Args:
        connection: In a transaction of the agent.
        agent_id: Whose.
        filters: What they have in common.
        most: How many at most.
        newest_first: The order.
        after: Where to go on; None begins at the start.
    """
    rows = connection.execute(
        _LISTED,
        {
            "agent_id": agent_id,
            "filters": orjson.dumps(filters.present()).decode(),
            "newest_first": newest_first,
            "after_at": after.occurred_at if after else None,
            "after_seq": after.seq if after else None,
            "most": most,
        },
    )
    return [_view(row) for row in rows]


def around(connection: Connection, agent_id: str, episode_id: UUID, before: int, after: int) -> tuple[list[EpisodeView], list[EpisodeView]]:
    """Return the nearest turns of the episode's session (before it, after it), each in the order in which they happened.

    Both are empty when the episode has no session, or the agent has no such episode.
    """
    rows = connection.execute(_AROUND, {"agent_id": agent_id, "episode_id": episode_id, "before": before, "after": after})
    sides: tuple[list[EpisodeView], list[EpisodeView]] = ([], [])
    for row in rows:
        values = dict(row._mapping)
        sides[0 if values.pop("is_before") else 1].append(EpisodeView(**values))
    return sides


def projects(connection: Connection, agent_id: str) -> list[Project]:
    """Return the agent's projects by name; empty when it has none."""
    return [Project(**row._mapping) for row in connection.execute(_PROJECTS, {"agent_id": agent_id})]


def count_open(connection: Connection, agent_id: str) -> int:
    """Return how many of the agent's episodes wait for their vector."""
    return int(connection.execute(_ALL_OPEN, {"agent_id": agent_id}).scalar_one())
