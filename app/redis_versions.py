"""Which versions of Redis and Valkey lack a security fix."""

from collections.abc import Mapping
from typing import Any

Version = tuple[int, ...]

_FIXED_IN: dict[str, dict[Version, Version]] = {
    "redis": {(6, 2): (6, 2, 20), (7, 2): (7, 2, 11), (7, 4): (7, 4, 6), (8, 0): (8, 0, 4), (8, 2): (8, 2, 2)},
    "valkey": {(7, 2): (7, 2, 11), (8, 0): (8, 0, 6), (8, 1): (8, 1, 4)},
}
"""First release of each line without CVE-2025-49844, which is reached by scripts. Source: advisory GHSA-4789-qfc9-5f9q."""


def label(product: str, version: Version) -> str:
    """Return product and version for people."""
    return f"{product} {'.'.join(map(str, version))}"


def security_note(product: str, version: Version) -> str | None:
    """Return what is wrong with a version, or None when no fix is known to be missing."""
    lines = _FIXED_IN.get(product, {})
    fixed = lines.get(version[:2])
    if fixed is None and lines and version[:2] < max(lines):
        return (
            f"{label(product, version)} is of a line that gets no security fixes any more, but for those that a distribution may add to it"
        )
    if fixed is None or version >= fixed:
        return None
    return f"{label(product, version)} is behind its security fixes ({'.'.join(map(str, fixed))} is the first with CVE-2025-49844 closed)"


def note_of(info: Mapping[str, Any]) -> str | None:
    """Return the same of a server by what it says of itself (INFO server); None when it says nothing that is understood."""
    product = "valkey" if info.get("server_name") == "valkey" else "redis"
    numbers = str(info.get(f"{product}_version", "")).split(".")
    if not all(number.isdigit() for number in numbers):
        return None
    return security_note(product, tuple(map(int, numbers)))
