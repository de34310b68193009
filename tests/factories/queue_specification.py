"""What a row of the queue may do, step by step: the state machine of the queue, to hold a record of its changes against."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import NamedTuple


class Key(NamedTuple):
    """Which row of the queue."""

    target_kind: str
    target_id: str
    model_id: int


@dataclass(frozen=True, slots=True)
class Row:
    """What the model knows of a row; `started` is whether a worker has charged its attempt."""

    generation: int
    input_sha256: bytes
    state: str
    token: str | None
    started: bool
    retry_count: int
    solo: bool
    lease_until: datetime | None
    due_at: datetime
    last_error: str | None


COLUMNS = tuple(column.name for column in fields(Row))
ABSENT = Row(0, b"", "absent", None, False, 0, False, None, datetime.min.replace(tzinfo=UTC), None)
"""The row before it is inserted and after it is deleted."""


@dataclass(frozen=True, slots=True)
class Change:
    """One recorded change.

    Attributes:
        began_at: When its transaction began, which is what now() gives to every time it writes.
        changed_at: The clock at the change itself.
        role: Who was logged in.
        by_hand: Whether that was a superuser: a test that moves a clock, never the service.
    """

    seq: int
    key: Key
    old: Row
    new: Row
    txid: int
    began_at: datetime
    changed_at: datetime
    role: str
    by_hand: bool


@dataclass(slots=True)
class Past:
    """What the changes so far say of one row; `last` is None for a row whose first change is still to come."""

    last: Row | None = None
    tokens: set[str] = field(default_factory=set)
    done: set[int] = field(default_factory=set)

    def add(self, old: Row, new: Row) -> None:
        """Remember a step. A row that comes back after a deletion counts its generations anew; tokens are never used again."""
        self.tokens.update(token for token in (old.token, new.token) if token is not None)
        if new.state == "absent":
            self.done.clear()
        elif new.state == "done":
            self.done.add(new.generation)
        self.last = new


@dataclass(frozen=True, slots=True)
class Step:
    """A change beside what came before it and the attempts that a row has."""

    change: Change
    old: Row
    new: Row
    past: Past
    max_attempts: int

    @property
    def name(self) -> str:
        """What the step is called: for a legal one, a key of SPECIFICATION."""
        old, new = self.old, self.new
        if old == new:
            return "nothing"
        if new.state != "absent" and old.generation != new.generation:
            return "new input"
        name = _NAMES.get((old.state, new.state), "delete" if new.state == "absent" else f"{old.state} to {new.state}")
        if name == "renew" and new.started and not old.started:
            return "start"
        if name == "give back" and old.started and new.retry_count >= old.retry_count:
            return "retry"
        return name


_NAMES = {
    ("pending", "pending"): "wait",
    ("pending", "processing"): "claim",
    ("processing", "processing"): "renew",
    ("processing", "done"): "finish",
    ("processing", "pending"): "give back",
    ("processing", "dead"): "die",
    ("dead", "pending"): "replay",
}


class Rule(NamedTuple):
    """What must hold of a step, in words and as code."""

    text: str
    holds: Callable[[Step], bool]


class Transition(NamedTuple):
    """A legal step: which columns it may change at all, and what must hold of it besides ALWAYS."""

    may_change: frozenset[str]
    rules: tuple[Rule, ...] = ()


def _lease_grows(step: Step) -> bool:
    new, old = step.new.lease_until, step.old.lease_until
    return step.change.by_hand or new is None or old is None or new >= old


def _expired_if_called_so(step: Step) -> bool:
    lease = step.old.lease_until
    return not (step.new.last_error or "").startswith("lease_expired") or (lease is not None and lease < step.change.changed_at)


_ANYTHING = frozenset(COLUMNS)
_CLAIM = frozenset({"state", "token", "started", "lease_until"})
_VERDICT = _CLAIM | {"solo", "last_error"}

ALWAYS = (
    Rule("a token while processing, and only then", lambda s: (s.new.state == "processing") == (s.new.token is not None)),
    Rule("a lease while processing, and only then", lambda s: (s.new.state == "processing") == (s.new.lease_until is not None)),
    Rule("started only while processing", lambda s: s.new.state == "processing" or not s.new.started),
    Rule("attempts are counted from 0 to their maximum", lambda s: 0 <= s.new.retry_count <= s.max_attempts),
    Rule(
        "what is still to be tried has an attempt left",
        lambda s: s.new.started or s.new.state in {"done", "dead"} or s.new.retry_count < s.max_attempts,
    ),
)
"""What holds of every row that is there, whatever led to it."""

SPECIFICATION: dict[str, Transition] = {
    # A target appears (from generation 0) or its content changes: the work starts anew, whatever was going on.
    "new input": Transition(
        _ANYTHING,
        (
            Rule("generations follow one another", lambda s: s.new.generation == s.old.generation + 1),
            Rule("new work is pending", lambda s: s.new.state == "pending"),
            Rule("new work has all its attempts", lambda s: s.new.retry_count == 0),
            Rule("new work is under no suspicion", lambda s: not s.new.solo and s.new.last_error is None),
            Rule(
                "only other input, or a lost vector, is new work",
                lambda s: s.new.input_sha256 != s.old.input_sha256 or s.old.state == "done",
            ),
        ),
    ),
    "wait": Transition(frozenset({"due_at"})),
    "claim": Transition(
        frozenset({"state", "token", "lease_until"}),
        (
            Rule("a claim has a token never seen before", lambda s: s.new.token not in s.past.tokens),
            Rule("only what is due is claimed", lambda s: s.old.due_at <= s.change.changed_at),
            Rule("a claim's lease lies ahead", lambda s: s.new.lease_until is None or s.new.lease_until > s.change.began_at),
        ),
    ),
    # The attempt is charged here, so that a crash counts and a lost message does not.
    "start": Transition(
        frozenset({"started", "retry_count", "lease_until"}),
        (Rule("a start charges one attempt", lambda s: s.new.retry_count == s.old.retry_count + 1),),
    ),
    "renew": Transition(frozenset({"lease_until"}), (Rule("a lease only grows", _lease_grows),)),
    "finish": Transition(
        _VERDICT,
        (
            Rule("only started work is finished", lambda s: s.old.started),
            Rule("a generation is done once", lambda s: s.new.generation not in s.past.done),
            Rule("done work is under no suspicion", lambda s: not s.new.solo and s.new.last_error is None),
        ),
    ),
    # Nobody is to blame: the message was lost, the batch was too large, the model fails for every text, a client held the episode.
    "give back": Transition(
        _VERDICT | {"retry_count", "due_at"},
        (
            Rule("what the start charged is given back, no more", lambda s: s.new.retry_count == s.old.retry_count - s.old.started),
            Rule("a suspect that is given back stays alone", lambda s: s.new.solo or not s.old.solo),
        ),
    ),
    # A failure waits, longer each time; a crash goes on at once, alone.
    "retry": Transition(
        _VERDICT | {"due_at"},
        (
            Rule("a charged row waits or goes alone", lambda s: s.new.due_at > s.change.began_at or s.new.solo),
            Rule("a suspect that is charged stays alone", lambda s: s.new.solo or not s.old.solo),
            Rule("a charge has a reason", lambda s: s.new.last_error is not None),
            Rule("a lease is called expired after its end", _expired_if_called_so),
        ),
    ),
    "die": Transition(
        _VERDICT | {"due_at"},
        (
            Rule("only started work dies", lambda s: s.old.started),
            Rule("death comes with the last attempt", lambda s: s.new.retry_count == s.max_attempts),
            Rule("a death has a reason", lambda s: s.new.last_error is not None),
            Rule("a lease that kills is called expired after its end", _expired_if_called_so),
        ),
    ),
    "replay": Transition(
        frozenset({"state", "retry_count", "due_at", "last_error"}),
        (
            Rule("a replay gives all attempts back", lambda s: s.new.retry_count == 0),
            Rule("a replay forgets the error", lambda s: s.new.last_error is None),
        ),
    ),
    "delete": Transition(_ANYTHING),
    "nothing": Transition(frozenset()),
}
"""The whole state machine. A step that is not here must not happen: done work stays done, dead rows are never claimed."""


def broken_rules(step: Step) -> Iterator[str]:
    """Yield the rules that a step breaks, in words."""
    if step.past.last not in (None, step.old):
        yield "a change takes up the row as the one before left it"
    transition = SPECIFICATION.get(step.name)
    if transition is None:
        yield "there is no such step"
        return
    if transition.may_change is not _ANYTHING:
        changed = [name for name in COLUMNS if name not in transition.may_change and getattr(step.old, name) != getattr(step.new, name)]
        if changed:
            yield f"this step leaves alone {', '.join(changed)}"
    for rule in transition.rules if step.new.state == "absent" else ALWAYS + transition.rules:
        if not rule.holds(step):
            yield rule.text
