"""One case: writes episodes, attacks, measures the recovery, and settles: everything done, every invariant checked, the result recorded."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from tests.factories import history
from tests.factories.episodes import delete, edit
from tests.factories.processes import wait_until
from tests.faults import invariants
from tests.faults.traces import Traces
from tests.faults.world import World

_INSERT = text(
    "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, importance_score)"
    " SELECT :agent_id, c, :importance FROM unnest(CAST(:contents AS text[])) AS c RETURNING episode_id"
)
_STATES = "SELECT state, count(*) FROM memory_system.embeddings_queue WHERE agent_id = %s GROUP BY state"
_IN_FLIGHT = "SELECT target_id::text, claim_token::text FROM memory_system.embeddings_queue WHERE agent_id = %s AND state = 'processing'"
_STILL_HELD = """
    SELECT count(*) FROM memory_system.embeddings_queue q
    JOIN unnest(%s::uuid[], %s::uuid[]) AS old (target_id, token) ON q.target_id = old.target_id AND q.claim_token = old.token
"""
_RELEASED = """
    SELECT max(extract(epoch FROM h.changed_at - %s)) FILTER (WHERE (h.new).state <> 'done')::float8,
           max(extract(epoch FROM h.changed_at - %s))::float8
    FROM test_mode.queue_history h
    JOIN unnest(%s::uuid[], %s::uuid[]) AS old (target_id, token) ON h.target_id = old.target_id AND (h.old).token = old.token::text
    WHERE (h.new).token IS DISTINCT FROM (h.old).token
"""
_STARTED = "SELECT count(*) FROM memory_system.embeddings_queue WHERE agent_id = %s AND state = 'processing' AND started_at IS NOT NULL"
_ATTEMPTS = "SELECT retry_count, count(*) FROM memory_system.embeddings_queue WHERE agent_id = %s AND state = 'done' GROUP BY 1 ORDER BY 1"
_SLOWED = """
    CREATE FUNCTION test_mode.slow_down() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END $$;
    CREATE TRIGGER slow_down BEFORE UPDATE ON memory_system.embeddings_queue
        FOR EACH ROW WHEN (OLD.state = '{old}' AND NEW.state = '{new}') EXECUTE FUNCTION test_mode.slow_down();
"""
_MOMENTS = {"claim": ("pending", "processing"), "ack": ("processing", "done")}
_DONE = "SELECT target_id FROM memory_system.embeddings_queue WHERE agent_id = %s AND state = 'done'"
_words = ("kettle", "harbour", "ledger", "winter", "violin", "copper", "meadow", "signal", "orchard", "granite", "lantern", "thicket")


@dataclass
class Outcome:
    """What a case showed: a row of the published table. Seconds are None where nothing was to be measured."""

    case: str
    broker: str
    encoder: str = ""
    episodes: int = 0
    lost: int = 0
    embedded_twice: int = 0
    stale_served: int = 0
    stuck: int = 0
    recovery_seconds: float | None = None
    drain_seconds: float | None = None
    most_messages: int = 0
    longest_transaction_seconds: float = 0.0
    attempts: dict[int, int] = field(default_factory=dict)
    passed: bool = False
    seen: list[str] = field(default_factory=list)


class Case:
    """What a test of the suite works with.

    Args:
        name: The case's name in the report.
        world: What is attacked.

    Attributes:
        agent: Whose episodes the case writes.
        ids: Every episode it wrote, in order.
        deleted: Those it deleted.
        outcome: What is recorded.
        stalls_transactions: Whether PostgreSQL itself is attacked, so that transactions may lie open.
        floods_broker: Whether the case sends messages itself.
        traces: What each of its episodes was written under.
    """

    def __init__(self, name: str, world: World) -> None:
        self.world = world
        self.agent = f"case-{uuid4().hex[:12]}"
        self.ids: list[UUID] = []
        self.deleted: set[UUID] = set()
        self.outcome = Outcome(name, world.broker.name, world.profile.encoder)
        self.stalls_transactions = False
        self.floods_broker = False
        self.traces = Traces(world.collector)
        self._workers_at_first = world.working_pids()
        # A killed worker's messages stay with Redis until the visibility timeout.
        self._left_by_others = world.broker.depth()
        self._numbers = itertools.count(1)
        self._sampler = invariants.Sampler(world.superuser, world.broker.depth, self.agent)
        self._sampler.start()

    @property
    def sql(self) -> Any:
        """Statements as the superuser."""
        return self.world.sql

    @property
    def patience(self) -> float:
        """Seconds within which everything must be done once PostgreSQL and the broker are back."""
        settings = self.world.settings
        grace = settings.lease_seconds + settings.reaper_seconds + settings.heartbeat_seconds
        return grace + 60 + len(self.ids) / 10

    def sentence(self) -> str:
        """Return a text that no other row has, about 60 characters long."""
        number = next(self._numbers)
        return f"{self.agent} note {number}: " + " ".join(_words[(number * step) % len(_words)] for step in (1, 5, 7, 11))

    def write(self, count: int, marks: str = "", importance: float = 0.5, contents: Sequence[str] = ()) -> list[UUID]:
        """Store episodes as the API's role and return their ids.

        Args:
            count: How many, when no contents are given.
            marks: Put into each text.
            importance: Their lane.
            contents: Their texts.
        """
        texts = list(contents) or [f"{self.sentence()} {marks}".strip() for _ in range(count)]
        new: list[UUID] = []
        for start in range(0, len(texts), 500):
            traceparent = self.traces.begin()
            with self.world.app_database.transaction(self.agent, traceparent) as connection:
                rows = connection.execute(
                    _INSERT, {"agent_id": self.agent, "contents": texts[start : start + 500], "importance": importance}
                )
                written = [row[0] for row in rows]
            self.traces.wrote(traceparent, written)
            new += written
        self.ids += new
        return new

    def edit(self, episode_id: UUID, content: str | None = None) -> None:
        """Edit an episode as the API's role, with its event."""
        traceparent = self.traces.begin()
        self.traces.wrote(traceparent, [episode_id])
        edit(self.world.app_database, self.agent, episode_id, content or self.sentence(), traceparent)

    def delete(self, episode_id: UUID) -> None:
        """Delete an episode as the API's role."""
        assert delete(self.world.app_database, self.agent, episode_id)
        self.deleted.add(episode_id)

    def states(self) -> dict[str, int]:
        """Return the case's queue rows by state."""
        return dict(self.sql(_STATES, self.agent))

    def wait_taken(self, left: int) -> None:
        """Return once the workers have dealt with all messages but those that an earlier case left, which Redis keeps for five minutes."""
        depth = self.world.broker.depth
        wait_until(lambda: depth() <= left, 120, lambda: f"{depth()} messages wait, {left} did before")

    def wait_in_flight(self, rows: int = 1, *, started: bool = True) -> None:
        """Return once so many rows are claimed and, unless told otherwise, some are being encoded."""
        wait_until(
            lambda: self.states().get("processing", 0) >= rows and (not started or self.sql.one(_STARTED, self.agent) > 0),
            30,
            lambda: f"{rows} rows in flight; seen {self.states()}",
        )

    def wait_done(self, at_least: int) -> None:
        """Return once so many rows are done."""
        wait_until(
            lambda: self.states().get("done", 0) >= at_least,
            self.patience,
            lambda: f"{at_least} done; seen {self.states()}\n{self.world.diagnosis()}",
        )

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Measure the recovery from what the block does: from its end until nothing that was in flight before is held by its old claim.

        The block ends with PostgreSQL and the broker up, because recovery counts from then.
        """
        held = self.sql(_IN_FLIGHT, self.agent)
        yield
        ended_at = self.sql.one("SELECT clock_timestamp()")
        ids, tokens = [row[0] for row in held], [row[1] for row in held]
        wait_until(
            lambda: not self.sql.one(_STILL_HELD, ids, tokens),
            self.patience,
            lambda: f"{self.sql.one(_STILL_HELD, ids, tokens)} of {len(held)} rows that were in flight at the fault still are",
            every=0.05,
        )
        if not held:
            return
        given_back, released = self.sql(_RELEASED, ended_at, ended_at, ids, tokens)[0]
        # What was finished under its old claim was not held up; only if all was, its time is the answer.
        seconds = released if given_back is None else given_back
        self.outcome.recovery_seconds = max(self.outcome.recovery_seconds or 0.0, round(max(0.0, seconds or 0.0), 2))

    @contextmanager
    def slowed(self, moment: str) -> Iterator[None]:
        """Make every claim or every ack take 30 ms a row longer inside the database, so that a fault can strike in its middle."""
        old, new = _MOMENTS[moment]
        self.sql(_SLOWED.format(old=old, new=new))
        try:
            yield
        finally:
            self.sql("DROP FUNCTION test_mode.slow_down() CASCADE")

    def wait_in_statement(self, moment: str) -> None:
        """Return while a slowed claim or ack is running."""
        # From the first kilobyte of the statement: the server shows no more.
        verb = {"claim": "WITH in_use AS", "ack": "SET state = ''done''"}[moment]
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'nexus_worker' AND state = 'active' AND wait_event = 'PgSleep'"
            f" AND query LIKE '%%{verb}%%'"
        )
        wait_until(lambda: self.sql.one(running), 30, f"no {moment} was seen running", every=0.005)

    def drained(self) -> bool:
        """Return whether nothing of the case is to be done any more."""
        states = self.states()
        return not states.get("pending") and not states.get("processing")

    def drain(self) -> None:
        """Return once nothing is to be done any more; fail if that takes longer than it may."""
        seconds = wait_until(
            self.drained,
            self.patience,
            lambda: f"I8: still to be done: {self.states()}; {self._oldest()}\n{self.world.diagnosis()}",
            every=0.05,
        )
        self.outcome.drain_seconds = round(seconds, 2)

    def _oldest(self) -> str:
        rows = self.sql(
            "SELECT state, retry_count, solo, last_error, extract(epoch FROM now() - enqueued_at)::int,"
            " extract(epoch FROM due_at - now())::int"
            " FROM memory_system.embeddings_queue WHERE agent_id = %s AND state IN ('pending', 'processing') ORDER BY enqueued_at LIMIT 3",
            self.agent,
        )
        return f"the oldest (state, attempts, solo, error, age, due in): {rows}"

    def settle(self, *, dead: Iterable[UUID] = (), most_attempts: int = 1) -> None:
        """Drain, check everything that must hold, and record the outcome.

        Args:
            dead: The episodes that must be dead; every other one must be done, unless it was deleted.
            most_attempts: How many attempts a done row may have cost.
        """
        self.drain()
        self._sampler.stop()
        outcome, expected_dead = self.outcome, set(dead)
        live = set(self.ids) - self.deleted
        searchable = {
            row[0]
            for row in self.sql(
                "SELECT episode_id FROM nexus_memory.zep_episodic_memory WHERE agent_id = %s AND embedding_sha256 = input_sha256",
                self.agent,
            )
        }
        found_dead = {
            row[0]
            for row in self.sql("SELECT target_id FROM memory_system.embeddings_queue WHERE agent_id = %s AND state = 'dead'", self.agent)
        }
        found = {str(each) for each in searchable | found_dead}
        outcome.attempts = dict(self.sql(_ATTEMPTS, self.agent))
        outcome.episodes = len(self.ids)
        outcome.lost = len({str(each) for each in live} - found)
        outcome.embedded_twice = self.sql.one(invariants.TWICE, [str(each) for each in self.ids])
        outcome.stale_served = max(self._sampler.stale, self.sql.one(invariants.STALE, self.agent))
        outcome.stuck = sum(count for state, count in self.states().items() if state in {"pending", "processing"})
        outcome.most_messages = self._sampler.most_messages
        outcome.longest_transaction_seconds = round(self._sampler.longest_transaction_seconds, 2)
        broken = self._broken(most_attempts)
        if {str(each) for each in found_dead} != {str(each) for each in expected_dead}:
            broken.append(f"I5: {len(found_dead)} rows are dead and {len(expected_dead)} should be")
        outcome.passed = not broken
        outcome.seen = broken
        assert not broken, "; ".join(broken[:10])

    def _broken(self, most_attempts: int) -> list[str]:
        settings, outcome, sampler = self.world.settings, self.outcome, self._sampler
        broken = invariants.broken(self.sql, self.agent, self.ids, settings.max_attempts)
        if outcome.lost:
            broken.append(f"I1: {outcome.lost} episodes lost")
        if outcome.stale_served:
            broken.append(f"I2: {outcome.stale_served} stale vectors")
        if outcome.attempts and max(outcome.attempts) > most_attempts:
            broken.append(f"I6: rows done by attempts {outcome.attempts}, and at most {most_attempts} may be charged")
        window = 2 * settings.batch_rows * max(1, sampler.window_slots)
        if outcome.most_messages - self._left_by_others > window and not self.floods_broker:
            broken.append(f"I9: {outcome.most_messages} messages in the broker, and the window is {window} rows")
        if sampler.longest_idle_seconds > invariants.LONGEST_IDLE_TRANSACTION_SECONDS and not self.stalls_transactions:
            broken.append(f"I10: a transaction lay open and idle for {sampler.longest_idle_seconds:.1f} s")
        found = invariants.breaches(self.sql, settings.max_attempts, self.ids)
        if history.untallied(self.sql) != (0, 0):
            broken.append(f"I13: (done, dead) rows that the counters lack: {history.untallied(self.sql)}")
        return broken + [f"history: {sentence}" for sentence in found] + self._broken_traces()

    def _broken_traces(self) -> list[str]:
        """Return what I12 finds; a worker that died took its last spans along, so only where none did must each row have one."""
        done = [row[0] for row in self.sql(_DONE, self.agent)]
        if self.world.working_pids() == self._workers_at_first:
            with suppress(AssertionError):
                wait_until(lambda: not self.traces.missing(done), 10, "spans are missing")
            missing = self.traces.missing(done)
        else:
            missing = set()
        return self.traces.broken() + ([f"I12: {len(missing)} done rows without a span"] if missing else [])

    def close(self) -> None:
        """Stop looking, and forget the record and the traces, which the next case begins anew."""
        self._sampler.stop()
        self.sql(history.FORGET)
        self.world.collector.clear()
