"""What an alert of compose/prometheus/rules.yml compares with what, so that panels show its own expression and its own bound."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

RULES = Path(__file__).resolve().parents[1] / "compose" / "prometheus" / "rules.yml"
_COMPARISON = re.compile(r"(?P<left>.+?) (?P<operator>[<>]|==) (?P<bound>[\d.]+)(?: (?:or|unless) .+)?")
_WORDS = {">": "above", "<": "below", "==": "at"}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        expression: What is compared with the bound.
        step: The value from which Grafana colours: of a count that must be 0, the first that is more.
        fires_above: False for one that fires below its step.
    """

    name: str
    expression: str
    step: float
    fires_above: bool
    severity: str
    sentence: str


@cache
def alerts() -> dict[str, Alert]:
    """Return every alert by its name.

    Raises:
        ValueError: One is no comparison with a number.
    """
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    return {rule["alert"]: _read(rule) for rule in rules}


def _read(rule: dict[str, Any]) -> Alert:
    found = _COMPARISON.fullmatch(rule["expr"])
    if found is None:
        raise ValueError(f"{rule['alert']} compares nothing with a number")
    operator, bound = found["operator"], float(found["bound"])
    return Alert(
        name=rule["alert"],
        expression=found["left"],
        step=bound if bound or operator == "<" else 1.0,
        fires_above=operator == ">",
        severity=rule["labels"]["severity"],
        sentence=(
            f"Alert {rule['alert']} ({rule['labels']['severity']}): {_WORDS[operator]} {bound:g} for {rule['for']}. "
            f"{rule['annotations']['action']}"
        ),
    )
