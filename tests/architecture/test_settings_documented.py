"""Every setting stands in .env.example and in the reference, and neither names one that does not exist."""

import re
from pathlib import Path

from app.config import ALL_SECRETS, COMPOSE_SECRETS, RABBITMQ_SECRET, Settings
from tests.factories.compose import interpolated_variables

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {name.upper() for name in Settings.model_fields}


def test_example_environment_names_every_setting_and_what_compose_takes_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", text, flags=re.MULTILINE))
    assert named == FIELDS | interpolated_variables()


def test_reference_names_every_setting_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\|\s*`([A-Z][A-Z0-9_]+)`\s*\|", text, flags=re.MULTILINE))
    assert named == FIELDS


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_every_secret_file_is_described() -> None:
    text = (ROOT / "secrets" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)\.txt` \|", text, flags=re.MULTILINE)) == {*ALL_SECRETS, *COMPOSE_SECRETS, RABBITMQ_SECRET}
