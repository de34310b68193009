"""Writes docs/benchmarks.md from runs that `python -m bench --json` and `python -m bench.rivals --json` kept."""

import json
from pathlib import Path

import click

from bench.report import from_json, to_markdown


@click.command()
@click.argument("page", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("runs", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1, required=True)
def main(page: Path, runs: tuple[Path, ...]) -> None:
    """Write PAGE from the files RUNS; of a part that several hold, the last one counts."""
    try:
        text = to_markdown([from_json(json.loads(run.read_text(encoding="utf-8"))) for run in runs])
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"a file is not what --json writes: {error}") from error
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
