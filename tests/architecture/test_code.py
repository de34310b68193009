"""Rules over the text of the code: layers, sizes, docstrings, forbidden commands."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("app", "tasks", "migrations")
MAX_LINES = 350
FLASK_PLACES = ("app/api/", "app/console/", "app/factory.py", "app/wsgi.py")
NOT_REPOSITORY_USERS = ("app/api/", "app/console/", "app/cli/", "tasks/")


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*found, ROOT / "beat_schedule.py"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, also inside functions; `from a import b` yields a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", modules(*PRODUCT), ids=relative)
def test_module_obeys_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    name = relative(path)
    if path.name == "__init__.py":
        assert text.strip() == "", "a package is empty, so that importing it builds nothing"
        return
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "the module does not say its responsibility"
    first = docstring.splitlines()[0]
    assert first[-1] in ".:" and len(first) > 15, first
    assert len(text.splitlines()) <= MAX_LINES
    used = set(imports(path))
    if name.startswith("app/"):
        assert not {module for module in used if module.split(".")[0] in {"tasks", "beat_schedule", "celery"}}
    if not name.startswith(FLASK_PLACES):
        assert not {module for module in used if module.split(".")[0] in {"flask", "flask_openapi3", "werkzeug"}}
    if name.startswith(NOT_REPOSITORY_USERS):
        assert not {module for module in used if module.startswith("app.") and module.endswith(".repository")}


@pytest.mark.parametrize("path", modules(*PRODUCT), ids=relative)
def test_no_command_blocks_or_empties_redis(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr.lower() not in {"flushall", "flushdb"}, f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "keys":
                # A dict's keys() takes nothing; Redis' takes a pattern.
                assert not node.args and not node.keywords, f"KEYS at line {node.lineno}"
            if node.func.attr == "execute_command":
                command = node.args[0]
                assert isinstance(command, ast.Constant), f"line {node.lineno}: a command that cannot be read here"
                assert str(command.value).split(" ")[0].upper() not in {"KEYS", "FLUSHALL", "FLUSHDB"}, f"line {node.lineno}"


def test_tests_and_bench_say_what_they_are_for() -> None:
    silent = [
        relative(path)
        for folder in ("tests", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
