"""Where the embedded stack keeps things, and what it remembers between runs."""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from app.errors import StackError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `app` and `tasks`; every program runs in it, wherever the command was typed."""

# A path with one of these would need an escape that supervisord's configuration format does not have.
_UNSAFE_IN_CONFIGURATION = re.compile(r"[\"';#\r\n]")


@dataclass(frozen=True)
class Layout:
    """The folders and files of one DATA_DIR, all absolute."""

    root: Path

    @property
    def stack_id(self) -> str:
        """The mark that every process of this DATA_DIR carries in its environment.

        It is made from the path and not stored, so leftovers are recognised even when the folder was emptied.
        """
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:16]

    @property
    def state_file(self) -> Path:
        """What this DATA_DIR remembers: ports and the running stack."""
        return self.root / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Locked for as long as a stack owns this DATA_DIR; holds the owner's process id."""
        return self.root / "stack.lock"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data folder."""
        return self.root / "postgres"

    @property
    def postgres_password_file(self) -> Path:
        """The password of the cluster's own superuser."""
        return self.root / "postgres-superuser.txt"

    @property
    def redis(self) -> Path:
        """Redis' configuration and snapshot."""
        return self.root / "redis"

    @property
    def logs(self) -> Path:
        """One rotated log a program."""
        return self.root / "logs"

    @property
    def supervisor_config(self) -> Path:
        """The configuration of supervisord, written anew at each start."""
        return self.root / "supervisord.conf"

    @property
    def beat(self) -> Path:
        """Where beat keeps its schedule."""
        return self.root / "beat"

    @property
    def prometheus(self) -> Path:
        """A configuration of Prometheus for this stack, written at each start, and the targets that it reads."""
        return self.root / "prometheus"

    @property
    def api_metrics(self) -> Path:
        """Files through which the API's processes share their counters; emptied at each start."""
        return self.root / "metrics" / "api"

    def log_file(self, program: str) -> Path:
        """Return the log of one program."""
        return self.logs / f"{program}.log"

    def create(self) -> None:
        """Create the folders that are missing.

        Raises:
            StackError: The path cannot be used or a folder cannot be made.
        """
        for path in (self.root, PROJECT_ROOT):
            if _UNSAFE_IN_CONFIGURATION.search(str(path)):
                raise StackError(f"the path {str(path)!r} holds a quote, ';', '#' or a line break; use another folder")
        try:
            for folder in (self.root, self.redis, self.logs, self.beat, self.api_metrics, self.prometheus):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for stale in self.api_metrics.glob("*.db"):
                stale.unlink(missing_ok=True)
        except OSError as error:
            raise StackError(
                f"cannot use DATA_DIR {self.root}: {error.strerror} ({error.filename}); set DATA_DIR to a folder of yours"
            ) from error


@dataclass(frozen=True)
class State:
    """What one DATA_DIR remembers. Zero and empty mean: not known."""

    phase: str = "stopped"
    """stopped, starting, ready or stopping."""
    owner_pid: int = 0
    """Who said so: a phase that a killed owner left behind says nothing of the next one."""
    host: str = ""
    port: int = 0
    flower_port: int = 0
    mcp_port: int = 0
    metrics_port: int = 0
    postgres_port: int = 0
    redis_port: int = 0
    supervisor_pid: int = 0
    supervisor_socket: str = ""

    @classmethod
    def read(cls, layout: Layout) -> "State":
        """Return the stored state, or an empty one when there is none or it is damaged."""
        try:
            raw: Any = json.loads(layout.state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls()
        if not isinstance(raw, dict):
            return cls()
        known: dict[str, type] = {field.name: type(field.default) for field in fields(cls)}
        kept: dict[str, Any] = {name: value for name, value in raw.items() if name in known and isinstance(value, known[name])}
        return cls(**kept)

    def write(self, layout: Layout) -> "State":
        """Store the state in one step, so that a reader never sees half of it, and return it."""
        write_private(layout.state_file, json.dumps(asdict(self), indent=1) + "\n")
        return self

    def update(self, layout: Layout, **changes: Any) -> "State":
        """Store a changed copy and return it."""
        return replace(self, **changes).write(layout)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 600 in one step: a reader sees the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
