"""What the programs of a stack are told through their environment."""

import os
from pathlib import Path

from app.config import ALL_SECRETS, RABBITMQ_SECRET, Settings
from app.stack.layout import Layout, State
from app.stack.leftovers import STACK_VARIABLE


def absolute(settings: Settings) -> Settings:
    """Return the settings with every path made absolute, because the programs run in another folder."""
    changes: dict[str, Path] = {"data_dir": settings.data_dir.resolve(), "secrets_dir": settings.secrets_dir.absolute()}
    for name in (*ALL_SECRETS, RABBITMQ_SECRET):
        path: Path | None = getattr(settings, f"{name}_file")
        if path is not None:
            changes[f"{name}_file"] = path.absolute()
    return _changed(settings, **changes)


def with_servers(settings: Settings, state: State) -> Settings:
    """Return the settings with the ports of Flower, the tools and metrics, and the embedded servers where no external one is given."""
    changes: dict[str, object] = {"flower_port": state.flower_port, "mcp_port": state.mcp_port, "metrics_port": state.metrics_port}
    if not is_given(settings, "database_url"):
        changes["database_url"] = f"postgresql://127.0.0.1:{state.postgres_port}/nexus_memory"
    if not is_given(settings, "redis_url"):
        changes["redis_url"] = f"redis://127.0.0.1:{state.redis_port}/0"
    if not is_given(settings, "broker_url"):
        changes["broker_url"] = f"redis://127.0.0.1:{state.redis_port}/1"
    return _changed(settings, **changes)


def is_given(settings: Settings, name: str) -> bool:
    """Return whether a setting was chosen, by the environment or by code, and is not just the default."""
    return name in settings.model_fields_set


def needs_embedded_redis(settings: Settings) -> bool:
    """Return whether the cache or the broker has no external server."""
    return not (is_given(settings, "redis_url") and is_given(settings, "broker_url"))


def for_programs(settings: Settings, layout: Layout) -> dict[str, str]:
    """Return the environment of every program.

    It is that of this process, plus every setting that was chosen (by code too: a test passes
    `Settings(lease_seconds=3)` and the workers see it), plus the mark by which leftovers are found.
    """
    environment = dict(os.environ)
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            environment[name.upper()] = str(value)
    environment |= {
        STACK_VARIABLE: layout.stack_id,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return environment


def _changed(settings: Settings, **changes: object) -> Settings:
    # model_copy counts the changed fields as chosen, which is what for_programs needs. It also copies
    # cached properties, which were computed from the old values.
    changed = settings.model_copy(update=changes)
    for cached in set(vars(changed)) - set(type(changed).model_fields):
        del vars(changed)[cached]
    return changed
