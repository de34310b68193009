"""The specification of the queue bites: every rule names a history that breaks it, and no legal history is refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories.history import violations
from tests.factories.queue_specification import ABSENT, ALWAYS, SPECIFICATION, Change, Key, Past, Row, Step

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE, SOON = timedelta(seconds=45), timedelta(seconds=5)
KEY = Key("episodic", "00000000-0000-0000-0000-000000000001", 1)
FREE: dict[str, Any] = {"token": None, "started": False, "lease_until": None}


class Story:
    """One row's changes, told one at a time; every step is legal unless `changed` fields make it otherwise."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.row = ABSENT
        self.now = START
        self._inputs = 0

    def to(self, *, by_hand: bool = False, **fields: Any) -> "Story":
        """Change the row as said, a second later."""
        self.now += timedelta(seconds=1)
        new = ABSENT if fields.get("state") == "absent" else replace(self.row, **fields)
        number = len(self.changes) + 1
        self.changes.append(Change(number, KEY, self.row, new, number, self.now, self.now, "nexus_worker", by_hand))
        self.row = new
        return self

    def put(self, **changed: Any) -> "Story":
        """Insert the row, or give it new content."""
        self._inputs += 1
        fields = {"generation": self.row.generation + 1, "input_sha256": bytes([self._inputs % 256]), "state": "pending", **FREE}
        return self.to(**{**fields, "retry_count": 0, "solo": False, "due_at": self.now, "last_error": None, **changed})

    def claim(self, **changed: Any) -> "Story":
        self.now = max(self.now, self.row.due_at)
        return self.to(**{"state": "processing", "token": f"token {len(self.changes)}", "lease_until": self.now + LEASE, **changed})

    def start(self, **changed: Any) -> "Story":
        return self.to(**{"started": True, "retry_count": self.row.retry_count + 1, "lease_until": self.now + LEASE, **changed})

    def renew(self, **changed: Any) -> "Story":
        return self.to(**{"lease_until": self.now + LEASE, **changed})

    def finish(self, **changed: Any) -> "Story":
        return self.to(**{"state": "done", **FREE, "solo": False, "last_error": None, **changed})

    def fail(self, **changed: Any) -> "Story":
        return self.to(**{"state": self._after_a_charge, **FREE, "due_at": self.now + SOON, "last_error": "encoder_error: X", **changed})

    def crash(self, **changed: Any) -> "Story":
        fields = {"state": self._after_a_charge, **FREE, "due_at": self.now, "solo": True, "last_error": "worker_lost: X"}
        return self.to(**{**fields, **changed})

    def expire(self, **changed: Any) -> "Story":
        self.now += LEASE
        return self.crash(**{"last_error": "lease_expired: the worker fell silent", **changed})

    def give_back(self, **changed: Any) -> "Story":
        fields = {"state": "pending", **FREE, "retry_count": self.row.retry_count - self.row.started, "due_at": self.now + SOON}
        return self.to(**{**fields, **changed})

    def replay(self, **changed: Any) -> "Story":
        return self.to(**{"state": "pending", "retry_count": 0, "due_at": self.now, "last_error": None, **changed})

    def delete(self) -> "Story":
        return self.to(state="absent")

    @property
    def _after_a_charge(self) -> str:
        return "dead" if self.row.retry_count == 5 else "pending"


def started() -> Story:
    return Story().put().claim().start()


def suspect() -> Story:
    return started().crash().claim()


def last_attempt() -> Story:
    story = Story().put()
    for _ in range(4):
        story.claim().start().fail()
    return story.claim().start()


BREACHES: dict[str, Callable[[], Story]] = {
    # ALWAYS
    "a token while processing, and only then": lambda: started().finish(token="token 1"),
    "a lease while processing, and only then": lambda: started().finish(lease_until=START + LEASE),
    "started only while processing": lambda: started().fail(started=True),
    "attempts are counted from 0 to their maximum": lambda: last_attempt().fail(state="pending").claim().start(),
    "what is still to be tried has an attempt left": lambda: last_attempt().fail(state="pending"),
    # new input
    "generations follow one another": lambda: started().put(generation=3),
    "new work is pending": lambda: started().put(state="processing", token="token 1", lease_until=START + LEASE),
    "new work has all its attempts": lambda: started().put(retry_count=1),
    "new work is under no suspicion": lambda: suspect().put(solo=True),
    "only other input, or a lost vector, is new work": lambda: started().put(input_sha256=bytes([1])),
    # claim
    "a claim has a token never seen before": lambda: Story().put().claim(token="a").give_back().claim(token="a"),
    "only what is due is claimed": lambda: (
        started().fail(due_at=START + timedelta(hours=1)).to(state="processing", token="b", lease_until=START + LEASE)
    ),
    "a claim's lease lies ahead": lambda: Story().put().claim(lease_until=START),
    # start and renew
    "a start charges one attempt": lambda: Story().put().claim().start(retry_count=0),
    "a lease only grows": lambda: started().renew(lease_until=START),
    # finish
    "only started work is finished": lambda: Story().put().claim().finish(),
    "a generation is done once": lambda: started().finish().to(state="pending").claim().start().finish(),
    "done work is under no suspicion": lambda: suspect().start().finish(solo=True),
    # give back
    "what the start charged is given back, no more": lambda: started().fail().claim().start().give_back(retry_count=0),
    "a suspect that is given back stays alone": lambda: suspect().give_back(solo=False),
    # retry
    "a charged row waits or goes alone": lambda: started().crash(solo=False),
    "a suspect that is charged stays alone": lambda: suspect().start().fail(solo=False),
    "a charge has a reason": lambda: started().fail(last_error=None),
    "a lease is called expired after its end": lambda: started().crash(last_error="lease_expired: the worker fell silent"),
    # die
    "only started work dies": lambda: Story().put().claim().to(state="dead", **FREE, last_error="x"),
    "death comes with the last attempt": lambda: started().fail(state="dead"),
    "a death has a reason": lambda: last_attempt().fail(last_error=None),
    "a lease that kills is called expired after its end": lambda: last_attempt().crash(last_error="lease_expired: the worker fell silent"),
    # replay
    "a replay gives all attempts back": lambda: last_attempt().fail().replay(retry_count=4),
    "a replay forgets the error": lambda: last_attempt().fail().replay(last_error="encoder_error: X"),
}
FORBIDDEN: dict[str, tuple[str, Callable[[], Story]]] = {
    "a dead row is claimed": ("there is no such step", lambda: last_attempt().fail().claim()),
    "done work is done again without new input": ("there is no such step", lambda: started().finish().to(state="pending")),
    "pending work is done by nobody": ("there is no such step", lambda: Story().put().finish()),
    "a claim is taken over": ("this step leaves alone token", lambda: started().renew(token="another")),
    "a finish charges again": ("this step leaves alone retry_count", lambda: started().finish(retry_count=2)),
    "a renewal charges": ("this step leaves alone retry_count", lambda: started().renew(retry_count=2)),
    "a failure counts twice": ("this step leaves alone retry_count", lambda: started().fail(retry_count=2)),
    "a claim arrives started": ("this step leaves alone started", lambda: Story().put().claim(started=True)),
    "a claim charges": ("this step leaves alone retry_count", lambda: Story().put().claim(retry_count=1)),
    "input changes without a generation": ("this step leaves alone input_sha256", lambda: started().renew(input_sha256=b"x")),
    "a replay starts a generation's suspicion": ("this step leaves alone solo", lambda: last_attempt().fail().replay(solo=True)),
}


def rules() -> list[str]:
    return [rule.text for rule in ALWAYS] + [rule.text for transition in SPECIFICATION.values() for rule in transition.rules]


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert sorted(BREACHES) == sorted(rules())


@pytest.mark.parametrize("rule", BREACHES)
def test_broken_rule_is_named_with_row_and_step(rule: str) -> None:
    story = BREACHES[rule]()
    found = violations(story.changes)
    assert any(rule in sentence for sentence in found), found
    assert all(KEY.target_id in sentence and "change " in sentence for sentence in found)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_step_outside_the_specification_is_named(name: str) -> None:
    rule, tell = FORBIDDEN[name]
    story = tell()
    (sentence,) = [sentence for sentence in violations(story.changes) if rule in sentence]
    assert f"(change {len(story.changes)} " in sentence


def test_change_that_the_record_misses_is_named() -> None:
    story = started().fail().claim()
    del story.changes[2]
    assert any("takes up the row as the one before left it" in sentence for sentence in violations(story.changes))


def test_row_older_than_the_record_is_taken_as_found() -> None:
    story = started().fail().claim().start().finish()
    for first in range(len(story.changes)):
        assert violations(story.changes[first:]) == []


def test_clock_is_moved_by_hand_only() -> None:
    assert violations(started().renew(lease_until=START, by_hand=True).changes) == []
    assert violations(started().renew(lease_until=START).changes) != []


def test_hand_may_not_do_more_than_move_a_clock() -> None:
    assert violations(started().renew(lease_until=START, retry_count=0, by_hand=True).changes) != []


def test_other_maximum_of_attempts_is_taken_from_the_caller() -> None:
    story = started().fail(state="dead")
    assert violations(story.changes, max_attempts=1) == []


def test_fifty_thousand_changes_are_checked_in_seconds() -> None:
    story = Story()
    while len(story.changes) < 50_000:
        story.put().claim().start().renew().finish()
    assert violations(story.changes) == []


STEPS: dict[str, tuple[str, ...]] = {
    "absent": ("put",),
    "pending": ("claim", "put", "delete", "wait"),
    "claimed": ("start", "give_back", "expire_unstarted", "put", "delete"),
    "started": ("renew", "finish", "fail", "crash", "expire", "give_back", "put", "delete"),
    "done": ("put", "revive", "delete"),
    "dead": ("replay", "put", "delete"),
}


@st.composite
def legal_stories(draw: st.DrawFn) -> Story:
    story = Story()
    for _ in range(draw(st.integers(1, 40))):
        row = story.row
        situation = row.state if row.state != "processing" else "started" if row.started else "claimed"
        match step := draw(st.sampled_from(STEPS[situation])):
            case "wait":
                story.to(due_at=row.due_at - SOON)
            case "expire_unstarted":
                story.now += LEASE
                story.give_back(due_at=story.now)
            case "revive":  # Its vector was lost.
                story.put(input_sha256=row.input_sha256)
            case _:
                getattr(story, step)()
    return story


@given(legal_stories())
def test_legal_history_is_not_refused(story: Story) -> None:
    assert violations(story.changes) == []


def _step(change: Change) -> str:
    return Step(change, change.old, change.new, Past(), 5).name


MUTATIONS: dict[str, tuple[set[str], Callable[[Row], dict[str, Any]]]] = {
    "a charge too many": ({"new input", "claim", "start", "renew", "finish"}, lambda row: {"retry_count": row.retry_count + 1}),
    "a charge too few": ({"start", "finish", "die", "renew"}, lambda row: {"retry_count": row.retry_count - 1}),
    "a generation skipped": (set(SPECIFICATION) - {"delete"}, lambda row: {"generation": row.generation + 1}),
    "another token": ({"start", "renew"}, lambda _: {"token": "a thief's"}),
    "a token kept": ({"new input", "finish", "give back", "retry", "die", "replay"}, lambda _: {"token": "kept"}),
    "a lease kept": ({"new input", "finish", "give back", "retry", "die"}, lambda _: {"lease_until": START}),
    "started too early": ({"claim"}, lambda _: {"started": True}),
    "started for ever": ({"new input", "finish", "give back", "retry", "die", "wait"}, lambda _: {"started": True}),
    "done for nothing": ({"claim", "wait", "give back", "replay"}, lambda _: {"state": "done"}),
    "killed": ({"claim", "wait", "finish", "give back", "new input"}, lambda _: {"state": "dead"}),
    "other input": (set(SPECIFICATION) - {"new input", "delete"}, lambda _: {"input_sha256": b"smuggled"}),
    "no reason": ({"retry", "die"}, lambda _: {"last_error": None}),
    "a suspicion from nowhere": ({"new input", "claim", "start", "finish"}, lambda row: {"solo": not row.solo}),
}


@given(legal_stories(), st.data())
def test_single_illegal_change_is_found(story: Story, data: st.DataObject) -> None:
    """The mutated row is carried into the following change, so that it is the step itself that gives it away."""
    applicable = [
        (index, name)
        for index, change in enumerate(story.changes)
        for name, (steps, _) in MUTATIONS.items()
        if _step(change) in steps and change.new != ABSENT
    ]
    if not applicable:
        return
    index, name = data.draw(st.sampled_from(applicable))
    changes = list(story.changes)
    mutated = replace(changes[index].new, **MUTATIONS[name][1](changes[index].new))
    changes[index] = replace(changes[index], new=mutated)
    if index + 1 < len(changes):
        changes[index + 1] = replace(changes[index + 1], old=mutated)
    assert violations(changes) != [], name
