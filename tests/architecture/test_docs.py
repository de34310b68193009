"""The documents agree with the code: links, settings, routes, codes, commands."""

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from app import errors
from app.api.policies import ROUTE_POLICIES, Access, RoutePolicy
from app.api.problems import _CODE_OF_STATUS, status_of
from app.cli.main import COMMANDS
from app.cli.stack import _up_detached
from app.config import ROTATABLE_SECRETS, Settings, load_settings
from app.factory import create_app
from app.identity.models import KeyRole
from app.identity.permissions import GRANTS, Permission
from app.stack.layout import Layout
from app.stack.lock import OwnerLock
from app.stack.programs import service_programs
from tests.api.doubles import Doubles
from tests.factories.documents import ROOT, difference, examples
from tests.faults import report

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "secrets" / "README.md"])
ADRS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
REFERENCE = ROOT / "docs" / "reference"
_WITHOUT_KEY: dict[RoutePolicy, str] = {Access.OPEN: "yes", Access.KEY_OR_LOOPBACK: "from this machine"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_named_path_and_make_target_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`(?:\w+=\S+ )*make ([a-z]+)", text)) <= targets
    named = re.findall(r"`((?:app|tasks|migrations|tests|docs|compose|\.ci)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_named_command_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"python -m app ([a-z]+)", text)) <= set(COMMANDS)


def test_every_curl_of_readme_says_what_comes_back() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert sum("curl" in block for block in blocks) == sum(example.status is not None for example in examples("README.md"))


def test_shown_answer_with_a_missing_or_invented_field_is_noticed() -> None:
    real = {"a": 1, "b": [{"c": None}]}
    assert difference({"a": 2, "b": [{"c": "x"}]}, real) is None
    for wrong in ({"a": 2}, {"a": 2, "b": []}, {"a": 2, "b": [{}]}, {"a": {}, "b": [{"c": 1}]}):
        assert difference(wrong, real) is not None


def test_example_environment_gives_every_default_under_its_description(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    for above, line in pairwise(lines):
        setting = re.match(r"#([A-Z_]+)=(.*)", line)
        if setting is None or setting[1].lower() not in Settings.model_fields:  # What only compose takes is no setting.
            continue
        name, value = setting[1], setting[2].strip("'")
        assert above == f"# {Settings.model_fields[name.lower()].description}"
        if value or Settings.model_fields[name.lower()].default == "":
            monkeypatch.setenv(name, value)
    assert load_settings() == Settings.model_construct()


def test_reference_gives_every_default_and_description() -> None:
    text = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    rows = {name: (default, meaning) for name, default, meaning in re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE)}
    example = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        default, meaning = rows[name.upper()]
        assert meaning == field.description
        assert default.strip("`") == (example[name.upper()].strip("'") or "(none)")


def test_reference_names_every_route_and_who_may_call_it(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path)
    app = create_app(settings, Doubles().as_services(settings))
    expected = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint in {"docs.asset", "console.static", "console.entrance.get_nothing"}:
            continue
        policy = ROUTE_POLICIES[rule.endpoint]
        permission = policy if isinstance(policy, Permission) else None
        roles = [permission is None or permission in GRANTS[role] for role in ("admin", "agent", "readonly", "operator")]
        without_key = _WITHOUT_KEY.get(policy, "-")
        path = rule.rule.replace("<", "{").replace(">", "}")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            expected[f"{method} {path}"] = [*("yes" if may else "-" for may in roles), without_key]
    assert set(get_args(KeyRole)) == {"admin", "agent", "readonly", "operator"}
    text = "".join(path.read_text(encoding="utf-8") for path in (REFERENCE / "api.md", ROOT / "docs" / "console.md"))
    rows = re.findall(r"^\| `([A-Z]+ /\S*)` \| (.*) \|$", text, re.MULTILINE)
    assert {route: cells.split(" | ") for route, cells in rows} == expected


def test_reference_names_every_error_code_with_its_status() -> None:
    def below(kind: type[errors.NexusError]) -> set[type[errors.NexusError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    never_answered = {"configuration_error", "stack_error"}
    answered = [kind for kind in below(errors.NexusError) if kind.__module__.startswith(("app.errors", "app.api"))]
    expected = {kind.code: int(status_of(_made(kind))) for kind in answered if kind.code not in never_answered}
    expected |= {code: status for status, code in _CODE_OF_STATUS.items()}
    text = (REFERENCE / "api.md").read_text(encoding="utf-8")
    assert {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text, re.MULTILINE)} == expected


def _made(kind: type[errors.NexusError]) -> errors.NexusError:
    return errors.InvalidItems("", []) if kind is errors.InvalidItems else kind("")


def test_message_of_a_busy_folder_is_quoted_as_each_way_of_starting_says_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secrets_dir=tmp_path)
    layout = Layout(tmp_path)
    layout.create()
    held = OwnerLock(layout.lock_file)
    held.acquire()
    try:
        said = []
        for start in (OwnerLock(layout.lock_file).acquire, lambda: _up_detached(settings)):
            with pytest.raises(errors.StackError) as refused:
                start()
            said.append(refused.value.message.replace(str(layout.root), "/srv/nexus/data").replace(str(os.getpid()), "18311"))
    finally:
        held.release()
    quoted = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    assert [message for message in said if f"error: {message}" not in quoted] == []


def test_what_backups_write_is_no_part_of_the_repository() -> None:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("deployment.md", "runbooks/restore.md"))
    assert {f"*.{ending}" for ending in re.findall(r"\bnexus\.(\w+)", text) if ending in {"dump", "secrets"}} == {"*.dump", "*.secrets"}
    assert {"*.dump", "*.secrets"} <= set(lines)


def test_every_secret_that_may_change_is_told_of_where_secrets_are_changed() -> None:
    for name in ("deployment.md", "runbooks/rotate-secrets.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        first = " ".join(cells.partition(" | ")[0] for cells in re.findall(r"^\| (.*)$", text, re.MULTILINE))
        assert [secret for secret in ROTATABLE_SECRETS if f"`{secret}`" not in first] == [], name


def test_proxy_tells_those_behind_it_whether_it_was_called_by_tls() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    locations = re.findall(r"^    location \S+ \{\n(.*?)^    \}", text, flags=re.MULTILINE | re.DOTALL)
    assert len(locations) == 2
    for location in locations:
        assert "proxy_set_header X-Forwarded-Proto $scheme;" in location


def test_glossary_has_each_word_once_and_in_order() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word.lower() for word in re.findall(r"^\| \*\*(.+?)\*\*", text, re.MULTILINE)]
    assert len(words) > 30
    assert words == sorted(set(words))


@pytest.mark.parametrize("adr", ADRS, ids=relative)
def test_decision_is_numbered_and_complete(adr: Path) -> None:
    text = adr.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(adr.name[:4])}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert "**Status**: " in text
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


def test_architecture_names_every_process_of_the_stack(tmp_path: Path) -> None:
    settings = Settings(secrets_dir=tmp_path, worker_replicas=2)
    programs = {program.name for program in service_programs(settings, Layout(tmp_path))} | {"postgres", "redis"}
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Processes")[2].partition("```mermaid")[0]
    named = {name for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+)", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == programs
    drawn = text.partition("```mermaid")[2].partition("```")[0]
    assert [name for name in programs if name not in drawn] == []


def test_threat_model_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+/test_\w+\.py)`", text))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []


def test_every_mutant_is_named() -> None:
    """`python -m tests.faults.report` writes the table anew."""
    document = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert report.publish(document, "mutants", report.mutants()) == document
    assert report.mutants().count("\n") > 40
