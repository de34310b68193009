"""The operating system user that PostgreSQL runs as when the stack is started by root."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import StackError

USER_NAME = "pgserver"
"""Made with `useradd` when root starts the stack, because PostgreSQL refuses to run as root."""


@dataclass(frozen=True)
class OsUser:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int


def server_user(data_folder: Path) -> OsUser | None:
    """Return the user PostgreSQL must run as, or None when it is the user of this process.

    A data folder that exists keeps its owner, so that root can start a stack which somebody else made.

    Raises:
        StackError: This process may not use the folder, or root could not make a user.
    """
    owner = data_folder.stat().st_uid if data_folder.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise StackError(f"{data_folder} belongs to user id {owner}; start the stack as that user, or set DATA_DIR to another folder")
        return None
    entry = pwd.getpwuid(owner) if owner else _make_user()
    return OsUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _make_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER_NAME)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    reason = "there is no `useradd` here"
    if useradd:
        command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", USER_NAME]
        reason = subprocess.run(command, check=False, capture_output=True, text=True).stderr.strip()
    try:
        return pwd.getpwnam(USER_NAME)
    except KeyError:
        raise StackError(
            f"PostgreSQL does not run as root and the user {USER_NAME} could not be made: {reason}; start the stack as an ordinary user"
        ) from None


def let_through(user: OsUser, target: Path, report: Callable[[str], None]) -> None:
    """Let a user walk to a path: x, not r, for others on each parent folder that lacks it.

    Args:
        user: Who must reach it.
        target: The file or folder to reach, resolved; its own mode is left alone.
        report: Is told of every folder that was changed.
    """
    for folder in reversed(target.parents):
        if not _may(user, folder.stat(), stat.S_IXOTH):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
            report(f"made {folder} passable (o+x, not readable) for the user {user.name}, which runs PostgreSQL")


def let_read(user: OsUser, folders: tuple[Path, ...], report: Callable[[str], None]) -> None:
    """Make every file below the folders readable for a user, for an installation made under a strict umask."""
    for folder in folders:
        changed = 0
        for path in _walk(folder):
            info = path.lstat()
            if stat.S_ISLNK(info.st_mode):
                continue
            wanted = stat.S_IROTH | (stat.S_IXOTH if info.st_mode & stat.S_IXUSR else 0)
            if not _may(user, info, wanted):
                path.chmod(stat.S_IMODE(info.st_mode) | wanted)
                changed += 1
        if changed:
            report(f"made {changed} files and folders in {folder} readable for the user {user.name}, which runs PostgreSQL")


def _walk(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def _may(user: OsUser, info: os.stat_result, others: int) -> bool:
    if info.st_uid == user.uid:
        return info.st_mode & (others << 6) == others << 6
    if info.st_gid == user.gid or info.st_gid in _groups(user):
        return info.st_mode & (others << 3) == others << 3
    return info.st_mode & others == others


def _groups(user: OsUser) -> set[int]:
    return {group.gr_gid for group in grp.getgrall() if user.name in group.gr_mem}
