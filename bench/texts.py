"""The texts to store: from a file, or made of the words of the shipped demo, every one distinct."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from app.demo.story import load_story

SHORT_TEXTS = 5000
LONG_TEXTS = 2000
LONG_CHARACTERS = 250
# Mean of 55 characters, as sentences of assistants' users have it.
_SHORT_WORDS = (4, 15)


def short_texts(file: Path | None, count: int = SHORT_TEXTS) -> list[str]:
    """Return distinct short texts in a fixed order.

    Args:
        file: JSON lines, gzip by its suffix, each {"text": ...}; None makes texts of the demo's words.
        count: How many.

    Raises:
        click.ClickException: The file has fewer distinct texts than wanted, or is not of that form.
    """
    found = list(islice(_distinct(_read(file) if file is not None else _made()), count))
    if len(found) < count:
        raise click.ClickException(f"{file} holds {len(found)} distinct texts; {count} are needed")
    return found


def long_texts(short: list[str], count: int = LONG_TEXTS, characters: int = LONG_CHARACTERS) -> list[str]:
    """Return distinct texts of at least `characters` characters, made by joining short ones until they are that long.

    The short texts are gone through as often as needed, each time in another fixed order.
    """
    order = random.Random(1)
    made: dict[str, None] = {}
    while len(made) < count:
        pieces: list[str] = []
        for piece in order.sample(short, len(short)):
            pieces.append(piece)
            if sum(map(len, pieces)) + len(pieces) - 1 >= characters:
                made[" ".join(pieces)] = None
                pieces = []
    return list(islice(made, count))


def questions(stored: Sequence[str], count: int) -> list[str]:
    """Return distinct questions in a fixed order: the first half of one stored text's words and the second half of another's.

    They are new to the service and speak of what is stored, as questions do.
    """
    chance = random.Random(3)

    def made() -> Iterator[str]:
        while True:
            first, second = (text.split() for text in chance.sample(stored, 2))
            yield " ".join([*first[: (len(first) + 1) // 2], *second[len(second) // 2 :]])

    return list(islice(_distinct(made()), count))


def _distinct(texts: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def _read(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield str(json.loads(line)["text"])
            except (ValueError, KeyError, TypeError):
                raise click.ClickException(f'{file}:{number} is not of the form {{"text": "..."}}') from None


def _made() -> Iterator[str]:
    words = [word for episodes in load_story().by_agent.values() for episode in episodes for word in episode.content.split()]
    chance = random.Random(0)
    while True:
        yield " ".join(chance.choices(words, k=chance.randint(*_SHORT_WORDS)))
