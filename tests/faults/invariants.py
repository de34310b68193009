"""What must hold after every case, and at every moment of it, as SQL."""

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from uuid import UUID

import psycopg2
from psycopg2 import extensions

from tests.factories import history
from tests.factories.statements import Sql

_SAMPLE_SECONDS = 0.2
LONGEST_IDLE_TRANSACTION_SECONDS = 1.0

# One snapshot a statement, so an edit that commits meanwhile is seen whole or not at all.
STALE = """
    SELECT count(*) FROM nexus_memory.zep_episodic_memory e
    WHERE e.agent_id = %s AND (e.embedding_sha256 <> e.input_sha256 OR EXISTS (
        SELECT FROM nexus_memory.episode_chunks c WHERE c.episode_id = e.episode_id AND c.input_sha256 <> e.input_sha256))
"""
_UNACCOUNTED = """
    SELECT count(*) FROM nexus_memory.zep_episodic_memory e
    LEFT JOIN memory_system.embeddings_queue q ON q.target_kind = 'episodic' AND q.target_id = e.episode_id
    WHERE e.agent_id = %s AND coalesce(q.state, 'none') NOT IN ('pending', 'processing', 'dead')
      AND (e.embedding_sha256 IS DISTINCT FROM e.input_sha256 OR NOT EXISTS (
        SELECT FROM nexus_memory.episode_chunks c WHERE c.episode_id = e.episode_id AND c.input_sha256 = e.input_sha256))
"""
_ORPHANED = """
    SELECT count(*) FROM memory_system.embeddings_queue q
    WHERE q.agent_id = %s AND NOT EXISTS (SELECT FROM nexus_memory.zep_episodic_memory e WHERE e.episode_id = q.target_id)
"""
_BAD_ROWS = """
    SELECT count(*) FROM memory_system.embeddings_queue
    WHERE agent_id = %s AND (retry_count > %s OR (state = 'dead' AND (retry_count < %s OR last_error IS NULL OR claim_token IS NOT NULL))
      OR last_error ~ '[[:cntrl:]]')
"""
TWICE = """
    SELECT count(*) FROM (
        SELECT FROM test_mode.queue_history h
        WHERE h.target_id = ANY (%s::uuid[]) AND (h.new).state = 'done' AND (h.old).state IS DISTINCT FROM 'done'
        GROUP BY h.target_kind, h.target_id, h.model_id, (h.new).generation HAVING count(*) > 1) twice
"""
_OPEN_TRANSACTIONS = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)) FILTER (WHERE state LIKE 'idle in transaction%%'), 0)::float8,
           coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
    FROM pg_stat_activity
    WHERE usename IN ('nexus_worker', 'nexus_app') AND application_name <> 'nexus fault suite' AND xact_start IS NOT NULL
"""

_SLOTS = """
    SELECT coalesce(sum(slots), 0) FROM memory_system.workers
    WHERE kind = 'worker' AND heartbeat_at > now() - interval '65 seconds'
"""


def broken(sql: Sql, agent: str, ids: Sequence[UUID], max_attempts: int) -> list[str]:
    """Return the invariants that an agent's rows break, in words; empty when all hold.

    Args:
        sql: The superuser.
        agent: Whose rows.
        ids: Every episode that was accepted.
        max_attempts: The setting of the processes.
    """
    drift = sql("SELECT drift FROM memory_system.accounting_identity(%s)", agent)[0][0]
    counts = {
        "I1: episodes without a vector and without work": sql.one(_UNACCOUNTED, agent),
        "I1: accounting identity off by": drift,
        "I1: queue rows without an episode": sql.one(_ORPHANED, agent),
        "I2: stale vectors": sql.one(STALE, agent),
        "I3: finished twice": sql.one(TWICE, [str(each) for each in ids]),
        "I5: rows with too many attempts, dead too early or without a readable error": sql.one(
            _BAD_ROWS, agent, max_attempts, max_attempts
        ),
        "I11: rows that the search for missing work still finds": sql.one("SELECT memory_system.enqueue_missing(10000)"),
    }
    return [f"{what}: {count}" for what, count in counts.items() if count]


def breaches(sql: Sql, max_attempts: int, ids: Collection[UUID] | None = None) -> list[str]:
    """Return where the record of the queue's changes breaks its specification.

    Args:
        sql: The superuser.
        max_attempts: The setting of the processes.
        ids: Whose changes; None for all.
    """
    mine = None if ids is None else {str(each) for each in ids}
    changes = [change for change in history.read(sql) if mine is None or change.key.target_id in mine]
    return history.violations(changes, max_attempts)


class Sampler:
    """Looks, again and again while a case runs, at what must hold at every moment.

    Args:
        connect: Opens a connection of the superuser.
        depth: Returns the messages in the broker.
        agent: Whose vectors are looked at.
        every: Seconds between two looks.

    Attributes:
        stale: The most stale vectors seen in one snapshot.
        most_messages: The most messages seen in the broker.
        longest_idle_seconds: The longest that a transaction of the service was open with nothing running in it.
        longest_transaction_seconds: The longest transaction of the service.
        samples: How often it could look.
        window_slots: The most slots of workers heard from in the last minute, by which the window is sized.
    """

    def __init__(
        self, connect: Callable[[], extensions.connection], depth: Callable[[], int], agent: str, every: float = _SAMPLE_SECONDS
    ) -> None:
        self.stale = 0
        self.most_messages = 0
        self.longest_idle_seconds = 0.0
        self.longest_transaction_seconds = 0.0
        self.samples = 0
        self.window_slots = 0
        self._connect = connect
        self._depth = depth
        self._agent = agent
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with closing(self._connect()) as connection:
                    self._look_while_connected(Sql(connection))
            except psycopg2.Error:
                self._stopped.wait(_SAMPLE_SECONDS)

    def _look_while_connected(self, sql: Sql) -> None:
        while not self._stopped.wait(self._every):
            self.stale = max(self.stale, sql.one(STALE, self._agent))
            idle, longest = sql(_OPEN_TRANSACTIONS)[0]
            self.longest_idle_seconds = max(self.longest_idle_seconds, idle)
            self.longest_transaction_seconds = max(self.longest_transaction_seconds, longest)
            self.most_messages = max(self.most_messages, self._depth())
            self.window_slots = max(self.window_slots, int(sql.one(_SLOTS)))
            self.samples += 1
