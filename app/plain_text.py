"""Text that a terminal or a page shows as it is: without characters that steer the one or turn the other around."""

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_STEERING = frozenset({"Cc", "Zl", "Zp"})


def _steers(character: str) -> bool:
    return character in _BIDI or unicodedata.category(character) in _STEERING


def is_plain(text: str) -> bool:
    """Return whether the text holds no control character, no line break and nothing that changes the direction of writing."""
    return not any(map(_steers, text))


def escaped(text: str) -> str:
    """Return the text with whatever `is_plain` refuses spelt out, as Python would: for what was stored by another hand."""
    return "".join(character.encode("unicode_escape").decode() if _steers(character) else character for character in text)
