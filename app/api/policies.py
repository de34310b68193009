"""Who may call which route: one table with every route of the application."""

from collections.abc import Mapping
from enum import StrEnum

from app.identity.permissions import Permission


class Access(StrEnum):
    """Routes that do not ask for a permission."""

    OPEN = "open to everybody"
    KEY_OR_LOOPBACK = "any key, or a caller on this machine"


RoutePolicy = Access | Permission

ROUTE_POLICIES: Mapping[str, RoutePolicy] = {
    "episodes.store_episode": Permission.WRITE_MEMORY,
    "episodes.store_episodes": Permission.WRITE_MEMORY,
    "episodes.list_recent": Permission.READ_MEMORY,
    "episodes.get_episode": Permission.READ_MEMORY,
    "episodes.list_episodes": Permission.READ_MEMORY,
    "episodes.get_context": Permission.READ_MEMORY,
    "episodes.change_episode": Permission.WRITE_MEMORY,
    "episodes.delete_episode": Permission.WRITE_MEMORY,
    "episodes.list_projects": Permission.READ_MEMORY,
    "working.create_context": Permission.WRITE_MEMORY,
    "working.put_context": Permission.WRITE_MEMORY,
    "working.get_context": Permission.READ_MEMORY,
    "working.delete_context": Permission.WRITE_MEMORY,
    "working.list_contexts": Permission.READ_MEMORY,
    "semantic.store_semantic": Permission.WRITE_MEMORY,
    "semantic.get_semantic": Permission.READ_MEMORY,
    "semantic.change_semantic": Permission.WRITE_MEMORY,
    "semantic.delete_semantic": Permission.WRITE_MEMORY,
    "semantic.list_semantic": Permission.READ_MEMORY,
    "consciousness.create_block": Permission.WRITE_MEMORY,
    "consciousness.put_block": Permission.WRITE_MEMORY,
    "consciousness.get_block": Permission.READ_MEMORY,
    "consciousness.delete_block": Permission.WRITE_MEMORY,
    "consciousness.list_blocks": Permission.READ_MEMORY,
    "consciousness.create_checkpoint": Permission.WRITE_MEMORY,
    "consciousness.get_checkpoint": Permission.READ_MEMORY,
    "consciousness.list_checkpoints": Permission.READ_MEMORY,
    "consciousness.restore_checkpoint": Permission.WRITE_MEMORY,
    "agents.forget_agent": Permission.FORGET_AGENT,
    "transfer.export_memory": Permission.READ_MEMORY,
    "transfer.import_memory": Permission.WRITE_MEMORY,
    "search.search_memory": Permission.READ_MEMORY,
    "integrity.verify": Permission.VERIFY_RECEIPTS,
    "integrity.get_identity": Permission.READ_INTEGRITY,
    "integrity.get_heads": Permission.VERIFY_RECEIPTS,
    "integrity.get_proof": Permission.VERIFY_RECEIPTS,
    "keys.create_key": Permission.MANAGE_KEYS,
    "keys.list_keys": Permission.MANAGE_KEYS,
    "keys.revoke_key": Permission.MANAGE_KEYS,
    "keys.rotate_key": Permission.MANAGE_KEYS,
    "keys.get_audit": Permission.READ_AUDIT,
    "operations.get_health": Permission.READ_HEALTH,
    "operations.get_liveness": Access.OPEN,
    "operations.get_readiness": Access.OPEN,
    "operations.get_stats": Permission.READ_STATS,
    "operations.get_metrics": Access.KEY_OR_LOOPBACK,
    "queue.get_queue": Permission.READ_QUEUE,
    "queue.get_dead_causes": Permission.READ_QUEUE,
    "queue.list_dead_rows": Permission.READ_QUEUE,
    "queue.replay_dead_rows": Permission.REPLAY_DEAD,
    "docs.openapi": Access.OPEN,
    "docs.page": Access.OPEN,
    "docs.asset": Access.OPEN,
    "console.static": Access.OPEN,
    "console.entrance.show_sign_in": Access.OPEN,
    "console.entrance.sign_in": Access.OPEN,
    "console.entrance.sign_out": Access.OPEN,
    "console.entrance.get_nothing": Access.OPEN,
    "console.overview.show_overview": Permission.READ_HEALTH,
    "console.overview.show_health": Permission.READ_HEALTH,
    "console.overview.show_queue": Permission.READ_QUEUE,
    "console.dead.show_dead": Permission.READ_QUEUE,
    "console.dead.replay": Permission.REPLAY_DEAD,
    "console.search.show_search": Permission.READ_MEMORY,
    "console.search.find": Permission.READ_MEMORY,
    "console.episodes.show_episodes": Permission.VERIFY_RECEIPTS,
    "console.episodes.show_episode": Permission.VERIFY_RECEIPTS,
    "console.episodes.verify_receipt": Permission.VERIFY_RECEIPTS,
    "console.integrity.show_integrity": Permission.READ_INTEGRITY,
    "console.keys.show_keys": Permission.MANAGE_KEYS,
    "console.keys.create": Permission.MANAGE_KEYS,
    "console.keys.revoke": Permission.MANAGE_KEYS,
    "console.keys.rotate": Permission.MANAGE_KEYS,
    "console.keys.show_audit": Permission.READ_AUDIT,
}
"""By endpoint name. A route without an entry answers nobody; a test holds the table and the routes together."""
