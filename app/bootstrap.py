"""The only place where objects are wired together. A worker's services need no Flask."""

from dataclasses import dataclass

from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import DBAPIError

from app.agents.service import AgentService
from app.cache.agents import AgentCache
from app.cache.contexts import ContextCache
from app.cache.depths import QueueDepths
from app.cache.lists import ListCache
from app.config import LEDGER_KEY_SECRET, Role, Settings
from app.consciousness.service import ConsciousnessService
from app.db import Database
from app.embedding import repository as embedding_repository
from app.embedding.encoder import Encoder, load_encoder
from app.embedding.models import EmbeddingModel, ModelsInUse
from app.embedding.service import EmbeddingService, LoadEncoder
from app.embedding.weights import find_source
from app.episodes.service import EpisodeService
from app.errors import DatabaseUnavailable
from app.identity.rate_limit import RateLimiter
from app.identity.service import KeyService
from app.identity.sessions import SessionService
from app.integrity.heads import Signer
from app.integrity.proofs import ProofService
from app.integrity.sealing import SealingService
from app.integrity.service import IntegrityService
from app.integrity.stats import StatsService
from app.observability.health import HealthService
from app.queue.dead import DeadRowService
from app.queue.service import QueueService
from app.queue.status import QueueStatusService
from app.reconcile.history import RunHistory
from app.reconcile.service import ReconciliationService
from app.redis_client import BestEffortRedis, connect
from app.search.encoding import QueryEncoder
from app.search.recall import RecallService
from app.search.reranking import Reranker
from app.search.service import SearchService
from app.semantic.service import SemanticService
from app.transfer.exporter import ExportService
from app.transfer.importer import ImportService
from app.working.service import WorkingMemoryService


@dataclass(frozen=True)
class Services:
    """What the API and the command line work with."""

    settings: Settings
    database: Database
    episodes: EpisodeService
    working: WorkingMemoryService
    semantic: SemanticService
    consciousness: ConsciousnessService
    search: SearchService
    integrity: IntegrityService
    proofs: ProofService
    health: HealthService
    stats: StatsService
    queue_status: QueueStatusService
    queue_depths: QueueDepths
    dead_rows: DeadRowService
    reconciliation_runs: RunHistory
    keys: KeyService
    sessions: SessionService
    rate_limiter: RateLimiter
    agents: AgentService
    exports: ExportService
    imports: ImportService

    def close(self) -> None:
        """End what runs in the background, and close every connection to PostgreSQL."""
        self.search.stop()
        self.database.close()


@dataclass(frozen=True)
class WorkerServices:
    """What one pool child works with."""

    queue: QueueService
    embedding: EmbeddingService
    sealing: SealingService
    reconciliation: ReconciliationService
    recall: RecallService


def build_cache_redis(settings: Settings) -> BestEffortRedis:
    """Return the connection to the cache."""
    return BestEffortRedis(settings)


def _loader(settings: Settings, threads: int) -> LoadEncoder:
    """Return what loads the models that the database names, from where this machine has them."""

    def load(model: EmbeddingModel) -> Encoder:
        return load_encoder(find_source(settings.embedding_model, model), settings.embedding_precision, threads)

    return load


def build_services(settings: Settings, load: LoadEncoder | None = None) -> Services:
    """Return the services of an API process, logged in as nexus_app. No connection is made and no model is loaded yet.

    Args:
        settings: All settings.
        load: Loads the encoders of queries; None loads them from this machine's files.
    """
    database = Database(settings, "nexus_app", "nexus api")
    redis = build_cache_redis(settings)
    lists = ListCache(redis)

    def read_models() -> ModelsInUse | None:
        with database.transaction() as connection:
            return embedding_repository.models_in_use(connection)

    # One thread a query: several requests are encoded at once, and must not fight over the cores.
    encoder = QueryEncoder(load or _loader(settings, 1), read_models, passes=settings.query_passes)
    reranker = Reranker(settings.reranker_model, settings.reranker_candidates) if settings.reranker_model else None
    search = SearchService(database, encoder, reranker)
    integrity = IntegrityService(database)
    working = WorkingMemoryService(database, ContextCache(redis))
    return Services(
        settings=settings,
        database=database,
        episodes=EpisodeService(database, lists, settings.default_language),
        working=working,
        semantic=SemanticService(database, lists, settings.default_language),
        consciousness=ConsciousnessService(database),
        search=search,
        integrity=integrity,
        proofs=ProofService(database),
        health=HealthService(settings, database, redis.redis, integrity, search.ready),
        stats=StatsService(database),
        queue_status=QueueStatusService(database, settings),
        queue_depths=QueueDepths(redis),
        dead_rows=DeadRowService(database, ring=lambda: lists.invalidate((), ring=True)),
        reconciliation_runs=RunHistory(database),
        keys=KeyService(database, settings.authentication_cache_seconds),
        sessions=SessionService(database),
        rate_limiter=RateLimiter(redis, settings.rate_limit_per_minute),
        agents=AgentService(database, AgentCache(redis)),
        exports=ExportService(database),
        imports=ImportService(database, lists, working.write_through, settings.default_language),
    )


def _queue_database(settings: Settings, application_name: str) -> Database:
    """Return the pool of a dispatcher or worker.

    Its commits do not wait for the disk, three waits fewer between a write and its vector. A crash of the server can lose the last
    fraction of a second of them, in order and each as a whole: a lost claim, start or failure leaves the row as it was before, and
    a message that still carries the lost token matches nothing; a vector and its done mark are one transaction, so losing it means
    encoding once more. What a client was told is stored was written by another role, and always waits.
    """
    return Database(settings, "nexus_worker", application_name, waits_for_disk=False)


def build_queue_service(settings: Settings) -> QueueService:
    """Return the queue for a dispatcher or a worker's parent, logged in as nexus_worker."""
    return QueueService(_queue_database(settings, "nexus queue"), settings)


def check_model(settings: Settings, role: Role) -> None:
    """Look whether this machine has the model that the database expects, without loading it.

    Where the database cannot say so now, nothing is found wrong: whoever loads the model asks again.

    Args:
        settings: All settings.
        role: The process's own.

    Raises:
        ConfigurationError: EMBEDDING_MODEL is another model, or the expected one is not on this machine, or a secret is missing.
    """
    database = Database(settings, role, "nexus start")
    try:
        with database.transaction() as connection:
            models = embedding_repository.models_in_use(connection)
    except (DatabaseUnavailable, DBAPIError):
        return
    finally:
        database.close()
    if models is not None:
        find_source(settings.embedding_model, models.active)


def _sealing(database: Database, settings: Settings) -> SealingService:
    return SealingService(database, lambda: Signer(settings.secret(LEDGER_KEY_SECRET)), settings.ledger_seal_seconds)


def build_sealing_service(settings: Settings) -> SealingService:
    """Return what seals the ledger, logged in as nexus_worker."""
    return _sealing(Database(settings, "nexus_worker", "nexus sealing"), settings)


def _reconciliation(database: Database, settings: Settings) -> ReconciliationService:
    redis = connect(
        settings,
        settings.redis_url,
        settings.redis_reconciler_user,
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(NoBackoff(), 1),
        client_name="nexus-reconciler",
    )
    return ReconciliationService(database, redis, ContextCache(build_cache_redis(settings)))


def build_reconciliation_service(settings: Settings) -> ReconciliationService:
    """Return what compares the stores, logged in as nexus_worker; a range may take longer than a request's statement."""
    return _reconciliation(Database(settings, "nexus_worker", "nexus reconciliation", statement_timeout_seconds=0), settings)


def build_worker_services(settings: Settings, load: LoadEncoder | None = None, database: Database | None = None) -> WorkerServices:
    """Load the model and return the services of a pool child; takes seconds.

    Args:
        settings: All settings.
        load: Loads encoders; None loads them from this machine's files, on this child's share of the cores.
        database: Logged in as nexus_worker; None opens one.

    Raises:
        ConfigurationError: The model is not the one that the database expects, or its weights are wrong.
        DatabaseUnavailable: PostgreSQL cannot be reached.
    """
    database = database or _queue_database(settings, "nexus worker")
    cache = ListCache(build_cache_redis(settings))
    embedding = EmbeddingService(database, load or _loader(settings, settings.worker_threads), cache, settings)
    return WorkerServices(
        QueueService(database, settings),
        embedding,
        _sealing(database, settings),
        _reconciliation(database, settings),
        RecallService(database),
    )
