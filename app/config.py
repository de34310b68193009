"""Every setting of every process, read once from the environment and passed down."""

import os
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from app.errors import ConfigurationError

Role = Literal["nexus_superuser", "nexus_app", "nexus_worker", "nexus_ro"]
"""The database roles a process can log in as."""

ROLE_SECRETS: dict[Role, str] = {
    "nexus_superuser": "pg_superuser_password",
    "nexus_app": "pg_app_password",
    "nexus_worker": "pg_worker_password",
    "nexus_ro": "pg_readonly_password",
}
"""The secret that holds each role's password."""

REDIS_SECRET = "redis_password"  # noqa: S105 - the name of a file
PASSWORD_SECRETS = (*ROLE_SECRETS.values(), REDIS_SECRET)
ADMIN_KEY_SECRET = "admin_api_key"  # noqa: S105 - the name of a file
LEDGER_KEY_SECRET = "ledger_signing_key"  # noqa: S105 - the name of a file
METRICS_KEY_SECRET = "metrics_api_key"  # noqa: S105 - the name of a file
CONSOLE_KEY_SECRET = "console_session_key"  # noqa: S105 - the name of a file
ALL_SECRETS = (*PASSWORD_SECRETS, ADMIN_KEY_SECRET, METRICS_KEY_SECRET, LEDGER_KEY_SECRET, CONSOLE_KEY_SECRET)
"""Every secret that is written here, each a file `<name>.txt` in SECRETS_DIR unless `<NAME>_FILE` says otherwise."""

COMPOSE_SECRETS = ("postgres_password", "grafana_admin_password")
"""Secrets that only the servers in compose/ read, each a file `<name>.txt` in SECRETS_DIR; written here with the others."""

ROTATABLE_SECRETS = (*PASSWORD_SECRETS, ADMIN_KEY_SECRET, METRICS_KEY_SECRET, CONSOLE_KEY_SECRET)
"""Those that may change. The key that seals the ledger is none: heads signed with another are refused by whoever trusts this one."""

RABBITMQ_SECRET = "rabbitmq_password"  # noqa: S105 - the name of a file
"""RABBITMQ_USER's password. Whoever runs the RabbitMQ chose it, so it is never written here, and read only if BROKER_URL needs it."""


class Settings(BaseSettings):
    """All settings; an environment variable is a field's name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    # Where things listen.
    host: str = Field("127.0.0.1", description="Address the API binds to.")
    port: int = Field(8002, ge=1, le=65535, description="Port of the API.")
    flower_host: str = Field("127.0.0.1", description="Address Flower binds to.")
    flower_port: int = Field(5555, ge=1, le=65535, description="Port of Flower.")
    mcp_host: str = Field("127.0.0.1", description="Address the memory as tools (MCP) binds to.")
    mcp_port: int = Field(8003, ge=1, le=65535, description="Port of the memory as tools (MCP).")
    metrics_host: str = Field("127.0.0.1", description="Address at which a dispatcher or worker shows its own metrics.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of a dispatcher's or worker's own metrics, 0 for none; in the embedded stack the first of theirs, "
        "and free ones if it is not set.",
    )
    mcp_api_url: str = Field("", description="Where the tools find the API; empty for HOST and PORT.")
    mcp_allowed_hosts: tuple[str, ...] = Field(
        (), description="Names under which the tools may be called beside this machine's own, with their ports, as a JSON list."
    )

    # Where things are kept.
    data_dir: Path = Field(Path("data"), description="Folder of the embedded stack: databases, logs, ports.")
    secrets_dir: Path = Field(Path("secrets"), description="Folder of the secret files.")
    pg_superuser_password_file: Path | None = Field(None, description="File of nexus_superuser's password.")
    pg_app_password_file: Path | None = Field(None, description="File of nexus_app's password.")
    pg_worker_password_file: Path | None = Field(None, description="File of nexus_worker's password.")
    pg_readonly_password_file: Path | None = Field(None, description="File of nexus_ro's password.")
    redis_password_file: Path | None = Field(None, description="File of the Redis password.")
    ledger_signing_key_file: Path | None = Field(None, description="File of the text from which the key that seals the ledger is made.")
    console_session_key_file: Path | None = Field(None, description="File of the key that signs the console's session cookies.")
    rabbitmq_password_file: Path | None = Field(None, description="File of RABBITMQ_USER's password, for a RabbitMQ broker.")
    admin_api_key_file: Path | None = Field(None, description="File of the first administrator's API key.")
    metrics_api_key_file: Path | None = Field(None, description="File of the API key with which Prometheus scrapes the API.")

    # Servers. Passwords never stand here: they come from the secret files.
    database_url: str = Field(
        "postgresql://127.0.0.1:5432/nexus_memory", description="PostgreSQL without credentials; each process adds its own role."
    )
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis of the cache; credentials are added when the URL has none.")
    broker_url: str = Field(
        "redis://127.0.0.1:6379/1",
        description="Celery's broker, Redis or RabbitMQ (amqp://host//; a cluster's nodes with ; between them). "
        "Credentials are added when the URL has none.",
    )
    postgres_memory_mb: int = Field(
        0,
        ge=0,
        le=1_048_576,
        description="Memory that the embedded PostgreSQL keeps data in (shared_buffers), in MiB; 0 for a quarter of the machine's, "
        "from 256 to 4,096.",
    )
    redis_memory_mb: int = Field(
        256, ge=64, le=65_536, description="Most memory of the embedded Redis, in MiB; keys that end soonest go first."
    )
    redis_cache_user: str = Field("nexus_cache", description="ACL user of the cache; empty for a server with one password only.")
    redis_broker_user: str = Field("nexus_broker", description="ACL user of the broker; empty for a server with one password only.")
    redis_reconciler_user: str = Field(
        "nexus_reconciler", description="ACL user of reconciliation, which runs scripts; empty for a server with one password only."
    )
    rabbitmq_user: str = Field("nexus", description="User of a RabbitMQ broker whose URL names none.")

    # Database behaviour.
    database_pool_size: int = Field(8, ge=1, le=200, description="Connections that one process keeps at most.")
    database_pool_timeout_seconds: float = Field(
        5.0, gt=0, description="How long a request waits for a connection before it is answered 503."
    )
    database_connect_timeout_seconds: int = Field(3, ge=1, description="How long a connection attempt may take.")
    statement_timeout_seconds: float = Field(15.0, gt=0, description="How long one SQL statement may run.")

    # API.
    api_processes: int = Field(2, ge=1, le=64, description="gunicorn processes; each holds a copy of the model.")
    api_threads: int = Field(8, ge=1, le=256, description="Threads of each gunicorn process.")
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024, description="Largest request body; a larger one is answered 413.")
    body_timeout_seconds: float = Field(
        10.0,
        gt=0,
        description="How long a client may take to send a request or to take up an answer, beside a second for each 16 KiB of it.",
    )
    default_language: str = Field("en", pattern="^(en|es|simple)$", description="Language of an episode that names none: en, es or simple.")
    working_ttl_seconds: int = Field(
        86_400, ge=1, le=31_536_000, description="How long a working memory lives that names no time of its own, in seconds."
    )
    reranker_model: str = Field(
        "", description="Folder or name of a cross-encoder that reads query and result together and orders the best anew; empty for none."
    )
    reranker_candidates: int = Field(20, ge=1, le=100, description="How many of the best results the cross-encoder reads.")
    authentication_cache_seconds: float = Field(5.0, ge=0, description="How long a process trusts a key it has looked up.")
    rate_limit_per_minute: int = Field(
        0, ge=0, le=1_000_000, description="Requests that a key without a limit of its own may make in a minute; 0 for no limit."
    )

    # Ledger.
    ledger_seal_seconds: float = Field(
        3600.0, ge=1, description="How old the first entry of a range of the ledger gets before it is sealed though not full, in seconds."
    )

    # Embedding.
    embedding_model: str = Field("", description="Folder or name of a sentence-transformers model; empty for the one the database names.")
    embedding_precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto measures at start-up and takes the faster safe one."
    )
    embedding_threads: int = Field(0, ge=0, le=256, description="Threads of torch in a worker; 0 shares the cores among WORKER_REPLICAS.")
    chunk_tokens: int = Field(256, ge=32, description="Longest chunk in the model's tokens, special tokens included.")
    chunk_overlap_tokens: int = Field(50, ge=0, description="Tokens that neighbouring chunks share.")

    # Queue.
    worker_replicas: int = Field(2, ge=1, le=64, description="Worker processes of the embedded stack and of compose.")
    worker_min: int = Field(0, ge=0, le=64, description="Fewest worker processes the embedded stack scales down to; 0 for WORKER_REPLICAS.")
    worker_max: int = Field(0, ge=0, le=64, description="Most worker processes the embedded stack scales up to; 0 for WORKER_REPLICAS.")
    autoscale_drain_minutes: float = Field(5.0, gt=0, description="Minutes in which the advised number of workers would drain the backlog.")
    autoscale_up_seconds: float = Field(30.0, ge=0, description="How long more workers must have been advised before some are started.")
    autoscale_down_seconds: float = Field(300.0, ge=0, description="How long fewer workers must have been advised before one is stopped.")
    lease_seconds: float = Field(45.0, gt=0, description="How long a claim holds without a heartbeat.")
    heartbeat_seconds: float = Field(15.0, gt=0, description="How often a worker renews its leases and reports itself.")
    reaper_seconds: float = Field(5.0, gt=0, description="How often expired leases are looked for.")
    poll_seconds: float = Field(0.2, gt=0, description="How long an idle dispatcher waits for the doorbell before it looks by itself.")
    batch_rows: int = Field(32, ge=1, le=256, description="Most rows in one Celery message.")
    batch_chars: int = Field(16_000, ge=1, description="Most characters in one Celery message, unless one row alone is longer.")
    claim_rows: int = Field(256, ge=1, le=4096, description="Most rows of one claim.")
    max_attempts: int = Field(5, ge=1, le=100, description="Attempts before a row is dead, crashes included.")
    retry_base_seconds: float = Field(5.0, gt=0, description="Wait before the second attempt; each further wait is four times longer.")
    retry_max_seconds: float = Field(900.0, gt=0, description="Longest wait between attempts.")
    breaker_base_seconds: float = Field(
        5.0, gt=0, description="First pause of a worker whose encoder fails for every text; each further pause is twice as long."
    )
    breaker_max_seconds: float = Field(300.0, gt=0, description="Longest pause of a worker whose encoder fails for every text.")
    task_time_limit_seconds: float = Field(
        300.0,
        gt=0,
        description="Hard limit of one task; the child that exceeds it is killed. A text longer than BATCH_CHARS gets more.",
    )
    task_time_limit_per_character_seconds: float = Field(
        0.01,
        ge=0,
        description="More time for each character beyond BATCH_CHARS; one of Hangul is three tokens, 0.0012 s of a core without bf16.",
    )
    worker_proc_alive_timeout_seconds: float = Field(180.0, gt=4, description="How long a child may take to load its model.")
    redis_visibility_timeout_seconds: int = Field(300, ge=30, description="When Redis redelivers a message that nobody acknowledged.")

    # Health.
    queue_depth_threshold: int = Field(1000, ge=1, description="Pending rows above which /health reports degraded.")
    oldest_pending_threshold_seconds: float = Field(
        300.0, gt=0, description="Age of the oldest pending row above which /health reports degraded."
    )
    worker_silence_seconds: float = Field(60.0, gt=0, description="Silence after which a worker or dispatcher counts as gone.")

    # Traces.
    otel_exporter_otlp_endpoint: str = Field(
        "", pattern="^(https?://.+)?$", description="Collector of traces, OTLP over HTTP (http://host:4318); empty for none."
    )

    # Logs.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="json for machines, console for people.")

    @property
    def worker_bounds(self) -> tuple[int, int]:
        """The fewest and the most workers that run; equal where the number is fixed, which is the default."""
        low = self.worker_min or self.worker_replicas
        high = self.worker_max or self.worker_replicas
        # With one of the two chosen, WORKER_REPLICAS stands for the other, and may lie on its wrong side.
        return (min(low, high), high) if self.worker_max else (low, max(low, high))

    @property
    def worker_threads(self) -> int:
        """Threads of torch in each worker: chosen, or the cores that this process may use, shared among the most workers that run."""
        return self.embedding_threads or max(1, len(os.sched_getaffinity(0)) // self.worker_bounds[1])

    @property
    def query_passes(self) -> int:
        """Queries' forward passes, of one thread each, that an API process runs at once: its share of the cores."""
        return max(1, len(os.sched_getaffinity(0)) // self.api_processes)

    def secret_path(self, name: str) -> Path:
        """Return the file that holds the named secret."""
        override: Path | None = getattr(self, f"{name}_file", None)
        # Given as nothing is not given: it would be this folder.
        return override if override not in (None, Path()) else self.secrets_dir / f"{name}.txt"

    def secret(self, name: str) -> str:
        """Return the named secret.

        Raises:
            ConfigurationError: The file is missing, empty or unreadable; there is no default.
        """
        path = self.secret_path(name)
        given_elsewhere = name == RABBITMQ_SECRET
        try:
            value = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            cure = f"write {self.rabbitmq_user}'s password into it" if given_elsewhere else "`make secrets` writes the missing ones"
            raise ConfigurationError(f"secret {name}: cannot read {path}: {error.strerror}; {cure}") from error
        if not value:
            cure = "write the secret into it" if given_elsewhere else "delete it and run `make secrets`, or write the secret into it"
            raise ConfigurationError(f"secret {name}: {path} is empty; {cure}")
        return value

    def database_dsn(self, role: Role) -> str:
        """Return the SQLAlchemy URL for one role, its password read from its secret file."""
        url = urlsplit(self.database_url)
        host = url.netloc.rpartition("@")[2]
        netloc = f"{role}:{quote(self.secret(ROLE_SECRETS[role]), safe='')}@{host}"
        return urlunsplit(("postgresql+psycopg2", netloc, url.path, url.query, ""))

    def _with_redis_credentials(self, raw: str, user: str) -> str:
        if not urlsplit(raw).scheme.startswith(("redis", "valkey")):
            return raw
        return self._with_credentials(raw, user, REDIS_SECRET)

    def _with_credentials(self, raw: str, user: str, secret_name: str) -> str:
        url = urlsplit(raw)
        if "@" in url.netloc:
            return raw
        netloc = f"{quote(user, safe='')}:{quote(self.secret(secret_name), safe='')}@{url.netloc}"
        return urlunsplit((url.scheme, netloc, url.path, url.query, url.fragment))

    @property
    def cache_dsn(self) -> str:
        """The URL of the cache with credentials."""
        return self._with_redis_credentials(self.redis_url, self.redis_cache_user)

    @property
    def broker_is_rabbitmq(self) -> bool:
        """Whether the broker speaks AMQP."""
        return urlsplit(self.broker_url).scheme in {"amqp", "amqps"}

    @cached_property
    def broker_dsn(self) -> str:
        """The URL of the broker with credentials; for a cluster of RabbitMQ, one for each node.

        Raises:
            ConfigurationError: The URL has none and the secret file of its kind of broker is missing or empty.
        """
        if self.broker_is_rabbitmq:
            nodes = filter(None, self.broker_url.split(";"))
            return ";".join(self._with_credentials(node.strip(), self.rabbitmq_user, RABBITMQ_SECRET) for node in nodes)
        return self._with_redis_credentials(self.broker_url, self.redis_broker_user)


def load_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        ConfigurationError: Lists every variable that is wrong, all at once.
    """
    try:
        settings = Settings()
    except SettingsError as error:
        # A list is written as JSON, which a shell takes the quotes of.
        raise ConfigurationError(f'settings are wrong: {error}; a list is JSON, in a shell within single quotes: \'["a", "b"]\'') from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"settings are wrong: {problems}") from None
    url = urlsplit(settings.database_url)
    problems_found = []
    if not url.scheme.startswith("postgresql") or not url.path.strip("/"):
        problems_found.append("DATABASE_URL: must look like postgresql://host:port/database")
    if "@" in url.netloc:
        problems_found.append("DATABASE_URL: must not name a user or password; each process logs in with its own role and secret file")
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        problems_found.append("HEARTBEAT_SECONDS: must be at most half of LEASE_SECONDS, or live work loses its lease")
    if settings.worker_min and settings.worker_max and settings.worker_min > settings.worker_max:
        problems_found.append("WORKER_MIN: must not be above WORKER_MAX")
    if settings.chunk_overlap_tokens * 2 > settings.chunk_tokens:
        problems_found.append("CHUNK_OVERLAP_TOKENS: must be at most half of CHUNK_TOKENS")
    if problems_found:
        raise ConfigurationError("settings are wrong: " + "; ".join(problems_found))
    return settings
