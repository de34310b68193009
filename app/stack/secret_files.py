"""The secret files: written once with random values, never overwritten."""

import os
import secrets
import string
from dataclasses import dataclass
from pathlib import Path

from app.config import ADMIN_KEY_SECRET, ALL_SECRETS, COMPOSE_SECRETS, METRICS_KEY_SECRET, Settings
from app.errors import ConfigurationError

_ALPHANUMERICS = string.ascii_letters + string.digits
_PASSWORD_CHARACTERS = 32
_KEY_CHARACTERS = 40
_KEY_PREFIXES = {ADMIN_KEY_SECRET: "nxs_admin_", METRICS_KEY_SECRET: "nxs_operator_"}


@dataclass(frozen=True)
class Written:
    """What became of the files.

    Attributes:
        created: Files that were missing, in the order of the names in the settings.
        kept: Files that were there.
    """

    created: list[Path]
    kept: list[Path]


def write_missing(settings: Settings) -> Written:
    """Write every secret file that is missing, mode 600, its folder 700; a file that exists is left as it is.

    Raises:
        ConfigurationError: Files are there and empty, or a folder cannot be written; all are named. What
            could be written, has been.
    """
    created, kept, problems = [], [], []
    for name in (*ALL_SECRETS, *COMPOSE_SECRETS):
        path = settings.secret_path(name)
        try:
            _create_folder(path.parent)
            if _create(path, new_value(name)):
                created.append(path)
                continue
            kept.append(path)
            if not path.read_text(encoding="utf-8").strip():
                problems.append(f"{path} is empty; delete it and run this again, or write the secret into it")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path}: {getattr(error, 'strerror', None) or 'is not text'}")
    if problems:
        raise ConfigurationError("secrets: " + "; ".join(problems))
    return Written(created, kept)


def new_value(name: str) -> str:
    """Return a random value as a secret of this name has it."""
    if name in _KEY_PREFIXES:
        return _KEY_PREFIXES[name] + _random(_KEY_CHARACTERS)
    return _random(_PASSWORD_CHARACTERS)


def put(path: Path, value: str) -> None:
    """Replace what a secret's file holds in one step; its owner and mode stay."""
    before = path.stat()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(temporary, before.st_uid, before.st_gid)
        temporary.chmod(before.st_mode & 0o777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _create_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif (folder / ".gitkeep").exists() or not any(folder.iterdir()):
        # The project's own folder comes from git with the mode of the umask. Somebody else's folder
        # (a mount of an orchestrator, say) keeps the mode its owner gave it.
        folder.chmod(0o700)


def _create(path: Path, value: str) -> bool:
    """Write a file that is missing and return True; return False when it is there already.

    The text is complete before the file has its name, so that a crash or a full disk leaves no empty
    secret; the link fails when somebody else was first.
    """
    if path.exists() or path.is_symlink():
        return False
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHANUMERICS) for _ in range(length))
