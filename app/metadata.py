"""The one list of table modules, which `alembic check` compares with the migrated database."""

from app.consciousness import tables as _consciousness
from app.embedding import tables as _embedding
from app.episodes import tables as _episodes
from app.identity import tables as _identity
from app.integrity import tables as _integrity
from app.queue import tables as _queue
from app.reconcile import tables as _reconcile
from app.schema import metadata
from app.search import tables as _search
from app.semantic import tables as _semantic
from app.working import tables as _working

INCLUDED_SCHEMAS = ("nexus_memory", "memory_system", "consciousness")

TABLE_MODULES = (_consciousness, _embedding, _episodes, _identity, _integrity, _queue, _reconcile, _search, _semantic, _working)

__all__ = ["INCLUDED_SCHEMAS", "TABLE_MODULES", "metadata"]
