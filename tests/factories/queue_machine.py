"""Everybody who touches the queue, and every fault, one step at a time: a state machine that Hypothesis drives."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from psycopg2 import extensions
from sqlalchemy import text

from app.embedding.service import BatchOutcome
from app.queue.dead import DeadSelection
from app.queue.models import Batch
from tests.factories.episodes import QueueRow, delete, edit, new_episode, stored_row
from tests.factories.queue_world import ATTEMPTS, World

AGENT = "alice"
_MOST_ROUNDS = 200
_KINDS = st.lists(st.sampled_from(["plain", "plain", "twin", "huge", "poison"]), min_size=1, max_size=4)
_WHICH = st.integers(0, 30)
_EVENTS = ("edit", "delete", "touch", "again", "crash", "lease ends", "lost to another")
_TOUCH = "UPDATE nexus_memory.zep_episodic_memory SET importance_score = 1 - importance_score WHERE episode_id = %s"
_HELD_EDIT = "UPDATE nexus_memory.zep_episodic_memory SET content = content || ' again' WHERE episode_id = %s"
_REWRITE = text("UPDATE nexus_memory.zep_episodic_memory SET content = content WHERE episode_id = :id")
_INSERT = "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content) VALUES (%s, %s) RETURNING episode_id"


class WorkerDied(BaseException):
    """Stands for a kill: nothing after it runs."""


class QueueMachine(RuleBasedStateMachine):
    """Steps of everybody who touches the queue; after each, what must always hold is asked of PostgreSQL."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.live: list[UUID] = []
        self.kinds: dict[UUID, str] = {}
        self.claimed: list[Batch] = []
        self.accepted = self.deleted = 0
        self.cured = False
        self.meanwhile: Callable[[], object] | None = None
        self.surprise: Exception | None = None
        self.late: extensions.connection | None = None
        self.now = 0.0
        self.numbers = itertools.count()
        self.dispatchers = [self.world.new_dispatcher(lambda: self.now) for _ in range(2)]
        self.world.encoder.before = self.before_encoding

    @initialize(kinds=_KINDS)
    def start(self, kinds: list[str]) -> None:
        self.world.empty()
        self.store(kinds, 0.5)

    # What happens inside the encoder.

    def before_encoding(self, texts: Sequence[str]) -> None:
        """Let the world move on, then fail as the texts demand."""
        act, self.meanwhile = self.meanwhile, None
        try:
            if act is not None:
                act()
        except Exception as error:  # noqa: BLE001
            # The worker would take it for a fault of the encoder.
            self.surprise = error
        if not self.cured and any("poison" in of_chunk for of_chunk in texts):
            raise ValueError
        if len(texts) > 1 and any("huge" in of_chunk for of_chunk in texts):
            raise MemoryError

    # Writers.

    def content(self, kind: str) -> str:
        """Return a text: all twins say the same, every other text is new."""
        return "twin" if kind == "twin" else f"{kind} text {next(self.numbers)}"

    @rule(kinds=_KINDS, importance=st.sampled_from([0.1, 0.5, 0.75, 0.95]))
    def store(self, kinds: list[str], importance: float) -> None:
        for kind in kinds:
            receipt = self.world.services.episodes.store(AGENT, new_episode(self.content(kind), importance_score=importance))
            self.accept(receipt.episode_id, kind)

    def accept(self, episode_id: UUID, kind: str) -> None:
        self.live.append(episode_id)
        self.kinds[episode_id] = kind
        self.accepted += 1

    def chosen(self, which: int) -> UUID:
        return self.live[which % len(self.live)]

    @precondition(lambda self: self.live)
    @rule(which=_WHICH, kind=st.sampled_from(["plain", "huge", "poison"]))
    def edit(self, which: int, kind: str) -> None:
        episode_id = self.chosen(which)
        self.kinds[episode_id] = kind
        edit(self.world.services.database, AGENT, episode_id, self.content(kind))

    @precondition(lambda self: self.live)
    @rule(which=_WHICH, unrelated=st.booleans())
    def change_nothing_to_encode(self, which: int, unrelated: bool) -> None:
        episode_id = self.chosen(which)
        before = self.world.queue_row_and_its_version(episode_id)
        if unrelated:
            self.world.sql(_TOUCH, str(episode_id))
        else:
            with self.world.services.database.transaction(AGENT) as connection:
                connection.execute(_REWRITE, {"id": episode_id})
        assert self.world.queue_row_and_its_version(episode_id) == before, "a change of nothing made work"

    @precondition(lambda self: self.live)
    @rule(which=_WHICH)
    def delete(self, which: int) -> None:
        episode_id = self.chosen(which)
        assert delete(self.world.services.database, AGENT, episode_id)
        self.live.remove(episode_id)
        self.deleted += 1

    @precondition(lambda self: self.late is None)
    @rule()
    def begin_a_late_insert(self) -> None:
        """A client's transaction inserts now and commits some steps later: rows claimed in between are younger than its row."""
        self.late = self.world.new_client()
        with self.late.cursor() as cursor:
            cursor.execute(_INSERT, (AGENT, self.content("plain")))
            (self.late_id,) = cursor.fetchone()

    @precondition(lambda self: self.late is not None)
    @rule()
    def commit_the_late_insert(self) -> None:
        if self.late is not None:
            self.late.commit()
            self.late.close()
            self.late = None
            self.accept(UUID(self.late_id), "plain")

    # Dispatchers.

    @rule(by=st.integers(0, 1), waits=st.booleans())
    def claim(self, by: int = 0, *, waits: bool = False) -> None:
        if waits:
            self.wait()
        queue = self.dispatchers[by]
        self.world.announce_worker(queue)
        self.claimed += queue.claim()

    @rule(rounds=st.integers(1, 5))
    def work_in_peace(self, rounds: int) -> None:
        """Everything that is claimed is delivered, round after round."""
        for _ in range(rounds):
            known = len(self.claimed)
            self.claim(waits=True)
            for batch in self.claimed[known:]:
                self.check_delivery(batch)

    @rule(by=st.integers(0, 1))
    def reap(self, by: int = 0) -> None:
        expired = self.world.expired()
        assert self.dispatchers[by].reap() == len(expired), "the reaper took what had not expired, or left what had"
        self.world.check_taken_back(expired)

    @precondition(lambda self: self.claimed)
    @rule(which=_WHICH)
    def expire(self, which: int) -> None:
        """Time passes: a lease ends, whoever works."""
        self.world.end_leases(self.batch(which))

    @precondition(lambda self: self.claimed)
    @rule(which=_WHICH)
    def fail_to_publish(self, which: int) -> None:
        batch = self.batch(which)
        unstarted = len(self.world.unstarted(batch))
        assert self.dispatchers[0].give_back([batch.claim]) == unstarted, "a failed publish gave back what a worker had started"

    @rule()
    def wait(self) -> None:
        """Time passes: every row is due, and every dispatcher looks from the start of the lanes again."""
        self.now += 2.0
        self.world.make_due()

    def batch(self, which: int) -> Batch:
        """Return a batch, the latest first: mostly of those that hold something, else any that was ever claimed."""
        in_flight = self.world.tokens_in_flight()
        busy = [batch for batch in self.claimed if str(batch.claim.token) in in_flight]
        choice = busy if busy and which % 4 else self.claimed
        return choice[-1 - (which // 4) % len(choice)]

    def fresh(self, which: int) -> Batch | None:
        """Return a batch that nobody has started, claimed now if need be; None when there is no work."""
        for claims in (False, True):
            if claims:
                self.claim(waits=True)
            fresh = [batch for batch in self.claimed if self.world.unstarted(batch)]
            if fresh:
                return fresh[which % len(fresh)]
        return None

    # Workers.

    @precondition(lambda self: self.claimed)
    @rule(which=_WHICH)
    def deliver(self, which: int = 0) -> None:
        """Deliver any message, be it for the first time, again, or long after its claim."""
        self.check_delivery(self.batch(which))

    def check_delivery(self, batch: Batch) -> None:
        before = self.world.unstarted(batch)
        outcome = self.process(batch)
        for target_id, was in before.items():
            self.check_charge(target_id, was, stored_row(self.world.sql, target_id))
        finished = sum(stored_row(self.world.sql, target_id).state == "done" for target_id in before)
        assert outcome.done == finished, "a worker finished work that was not its own"

    def process(self, batch: Batch) -> BatchOutcome:
        outcome = self.world.embedding.process(batch.claim)
        if self.surprise is not None:
            raise self.surprise
        assert outcome.done + outcome.failed + outcome.lost <= len(batch.claim.target_ids)
        return outcome

    def check_charge(self, target_id: UUID, was: QueueRow, now: QueueRow) -> None:
        """Hold a delivery to who pays for it: what is done, and what is to blame."""
        told = f"{self.kinds[target_id]} row: {was} became {now}"
        assert now.retry_count == was.retry_count + (now.state == "done" or self.is_poison(target_id)), told
        assert now.state in {"done", "dead" if now.retry_count == ATTEMPTS else "pending"}, told

    def is_poison(self, target_id: UUID) -> bool:
        """Return whether the encoder fails for the text, and for no other reason than the text."""
        return self.kinds[target_id] == "poison" and not self.cured

    @precondition(lambda self: self.live)
    @rule(which=_WHICH, event=st.sampled_from(_EVENTS))
    def deliver_meanwhile(self, which: int, event: str) -> None:
        """While a worker encodes, the world moves on."""
        batch = self.fresh(which)
        if batch is None:
            return
        target_id = batch.claim.target_ids[0]

        def act() -> None:
            index = self.live.index(target_id) if target_id in self.live else None
            match event:
                case "edit" if index is not None:
                    self.edit(index, "plain")
                case "delete" if index is not None:
                    self.delete(index)
                case "touch" if index is not None:
                    self.change_nothing_to_encode(index, unrelated=True)
                case "again":
                    assert self.process(batch).done == 0, "a second delivery worked too"
                case "lease ends" | "lost to another":
                    self.world.end_leases(batch)
                    self.reap()
                    if event == "lost to another":
                        self.claim(1, waits=True)
                        self.report_crash(batch)
                case "crash":
                    self.report_crash(batch)

        self.meanwhile = act
        self.process(batch)
        self.meanwhile = None

    @precondition(lambda self: self.live)
    @rule(which=_WHICH, edits=st.booleans(), commits=st.booleans())
    def deliver_while_a_client_holds(self, which: int, edits: bool, commits: bool) -> None:
        """A client's open transaction holds the first episode while the worker finishes."""
        batch = self.fresh(which)
        if batch is None:
            return
        target_id = batch.claim.target_ids[0]
        was = self.world.unstarted(batch).get(target_id)
        with closing(self.world.new_client()) as client:

            def hold() -> None:
                with client.cursor() as cursor:
                    cursor.execute(_HELD_EDIT if edits else _TOUCH, (str(target_id),))

            self.meanwhile = hold
            self.process(batch)
            was_held, self.meanwhile = self.meanwhile is None, None
            if commits:
                client.commit()
            else:
                client.rollback()
        if was is not None and was_held and not edits:
            self.check_charge(target_id, was, stored_row(self.world.sql, target_id))

    @precondition(lambda self: self.live)
    @rule(which=_WHICH)
    def kill_the_worker(self, which: int) -> None:
        batch = self.fresh(which)
        if batch is None:
            return

        def die() -> None:
            raise WorkerDied

        self.meanwhile = die
        try:
            self.process(batch)
        except WorkerDied:
            assert not self.world.unstarted(batch)
        self.meanwhile = None

    @precondition(lambda self: self.claimed)
    @rule(which=_WHICH)
    def release_crashed(self, which: int) -> None:
        """A worker's parent reports a dead child: any that ever had a batch."""
        self.report_crash(self.batch(which))

    def report_crash(self, batch: Batch) -> None:
        held = self.world.held(batch)
        taken = self.dispatchers[1].release_crashed(batch.claim, "worker_lost: WorkerLostError")
        assert taken == len(held), "a stale token took rows back"
        self.world.check_taken_back(held)

    @precondition(lambda self: self.live)
    @rule(which=_WHICH)
    def break_the_model(self, which: int) -> None:
        """The encoder fails for every text: no row pays for it."""
        batch = self.fresh(which)
        if batch is None:
            return
        before = self.world.unstarted(batch)
        self.world.encoder.broken = RuntimeError()
        try:
            self.process(batch)
        finally:
            self.world.encoder.broken = None
        assert self.world.embedding.breaker.wait_closed(10), "the breaker did not close"
        for target_id, was in before.items():
            now = stored_row(self.world.sql, target_id)
            told = f"a broken model was charged: {was} became {now}"
            assert (now.state, now.retry_count) in {("pending", was.retry_count), ("done", was.retry_count + 1)}, told

    # Operators.

    @rule(cure=st.booleans(), which=st.none() | _WHICH)
    def replay_dead(self, cure: bool, which: int | None) -> None:
        ids = None if which is None or not self.live else (self.chosen(which),)
        selection = DeadSelection(ids=ids)
        self.cured = self.cured or cure
        dead = self.world.services.dead_rows.count(selection)
        assert self.world.services.dead_rows.replay(selection, 1000, None).replayed == dead

    @precondition(lambda self: self.live)
    @rule(which=_WHICH)
    def restore_a_dump(self, which: int) -> None:
        """What triggers never see: a vector that is gone, or work that is; the search for missing work finds it."""
        self.world.lose_work(self.chosen(which))
        assert self.dispatchers[0].enqueue_missing() == 1
        assert self.dispatchers[0].enqueue_missing() == 0

    # What must hold.

    @invariant()
    def nothing_is_broken(self) -> None:
        self.world.check_now(self.accepted, self.deleted)

    def teardown(self) -> None:
        """Let the faults stop: everything comes to an end, and the record of all steps is one that the queue's specification allows."""
        self.commit_the_late_insert()
        self.drain()
        for episode_id in self.live:
            row = stored_row(self.world.sql, episode_id)
            is_to_blame = self.kinds[episode_id] == "poison" or (row.last_error or "").startswith(("worker_lost", "lease_expired"))
            assert row.state == "done" or (row.state == "dead" and is_to_blame), f"{self.kinds[episode_id]} row: {row}"
        self.nothing_is_broken()
        self.world.check_record()

    def drain(self) -> None:
        """Work until every row is done or dead."""
        for _ in range(_MOST_ROUNDS):
            self.world.end_leases()
            self.reap()
            self.work_in_peace(1)
            if not self.world.open_work():
                return
        raise AssertionError("work is stuck")


def machine_in(world: World) -> type[QueueMachine]:
    """Return the machine that moves this world."""
    return type("Machine", (QueueMachine,), {"world": world})
