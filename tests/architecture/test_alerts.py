"""The alerts of compose/prometheus: each is tried by promtool both ways, speaks of metrics that exist, and names commands that exist."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

from app.cli.main import nexus
from app.config import Settings
from app.observability import metrics
from app.stack import prometheus
from app.stack.layout import Layout
from app.stack.secret_files import write_missing
from tests.factories.documents import examples

FOLDER = Path(__file__).resolve().parents[2] / "compose" / "prometheus"
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
TESTS = yaml.safe_load((FOLDER / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
AMTOOL = shutil.which("amtool")
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None and os.environ.get("NEXUS_REQUIRE_PROMTOOL") != "1", reason="promtool is not installed (apt-get install prometheus)"
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None, "promtool is required and not installed"
    return subprocess.run([PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)


@needs_promtool
def test_rules_are_well_formed_and_do_what_their_tests_say() -> None:
    for arguments in (("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_configuration_of_containers_and_of_the_embedded_stack_is_sound(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secrets_dir=tmp_path, metrics_port=9200)
    layout = Layout(tmp_path)
    layout.create()
    write_missing(settings)
    prometheus.write(settings, layout)
    # promtool looks for the key's file, which only a container has at that place.
    shipped = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    assert "/run/secrets/metrics_api_key" in shipped
    text = shipped.replace("/run/secrets/metrics_api_key", str(settings.secret_path("metrics_api_key")))
    (tmp_path / "shipped.yml").write_text(text.replace("[rules.yml]", f"[{FOLDER / 'rules.yml'}]"), encoding="utf-8")
    for file in (tmp_path / "shipped.yml", layout.prometheus / "prometheus.yml"):
        done = promtool("check", "config", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.skipif(
    AMTOOL is None and os.environ.get("NEXUS_REQUIRE_PROMETHEUS") != "1", reason="amtool is not installed (prometheus-alertmanager)"
)
def test_configuration_of_alertmanager_is_sound() -> None:
    assert AMTOOL is not None, "amtool is required and not installed"
    file = FOLDER.parent / "alertmanager" / "alertmanager.yml"
    done = subprocess.run([AMTOOL, "check-config", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_rule_that_never_fires_is_found(rule: dict[str, Any], tmp_path: Path) -> None:
    text = (FOLDER / "rules.yml").read_text(encoding="utf-8")
    (tmp_path / "rules.yml").write_text(text.replace(f"expr: {rule['expr']}", "expr: vector(0) > 1"), encoding="utf-8")
    cases = [test for test in TESTS if any(case["alertname"] == rule["alert"] for case in test["alert_rule_test"])]
    whole = yaml.safe_load((FOLDER / "rules_test.yml").read_text(encoding="utf-8"))
    (tmp_path / "rules_test.yml").write_text(yaml.safe_dump(whole | {"tests": cases}), encoding="utf-8")
    done = promtool("test", "rules", str(tmp_path / "rules_test.yml"))
    assert done.returncode != 0
    assert f"alertname: {rule['alert']}" in done.stdout + done.stderr


def test_every_alert_is_shown_to_fire_and_not_to_fire() -> None:
    seen = {(case["alertname"], bool(case["exp_alerts"])) for test in TESTS for case in test["alert_rule_test"]}
    assert seen == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}


def test_every_alert_says_what_to_do() -> None:
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["for"]


def test_alerts_speak_of_metrics_that_exist() -> None:
    declared = {metric.name for metric in metrics.DECLARED}
    for rule in RULES:
        names = set(re.findall(r"\b((?:api|embeddings|accounting|nexus|ann|cache|reconciliation)_[a-z0-9_]+)", rule["expr"]))
        assert names or rule["expr"].startswith("up{"), rule["alert"]
        assert {name.removesuffix("_bucket") for name in names} <= declared


def check_commands(text: str) -> None:
    """Find each `python -m app ...` that a text names in the command line."""
    named = re.findall(r"`python -m app ([^`]+)`", text)
    assert len(named) >= 5
    for command in named:
        found: click.Command | None = nexus
        for word in command.split():
            assert isinstance(found, click.Group), command
            found = found.get_command(click.Context(found), word)
            assert found is not None, command


def test_commands_that_alerts_name_exist() -> None:
    check_commands(" ".join(rule["annotations"]["action"] for rule in RULES))


def test_every_alert_has_its_heading_two_commands_to_begin_with_and_a_word_on_agents() -> None:
    document = "docs/runbooks/alerts.md"
    lines = (FOLDER.parents[1] / document).read_text(encoding="utf-8").splitlines()
    headings = {number: line.removeprefix("## ") for number, line in enumerate(lines, 1) if line.startswith("## ")}
    assert list(headings.values()) == [rule["alert"] for rule in RULES]
    begins = sorted(headings)
    for begin, end in zip(begins, [*begins[1:], len(lines) + 1], strict=True):
        section = "\n".join(lines[begin : end - 1])
        assert sum(begin < block.line < end for block in examples(document)) >= 2, headings[begin]
        assert "**Agents**" in section or "**agents**" in section, headings[begin]
