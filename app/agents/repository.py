"""All SQL on an agent as a whole."""

from sqlalchemy import Connection, text

_FORGET_EPISODES = text("SELECT memory_system.forget_episodes(:most)")
_FORGET_OTHERS = text("SELECT * FROM memory_system.forget_others(:most)")
_FIXED_BLOCKS = text("SELECT count(*) FROM consciousness.memory_blocks WHERE agent_id = :agent_id AND read_only")
_ROWS = text("SELECT store, row_count FROM memory_system.agent_rows()")


def forget_episodes(connection: Connection, most: int) -> int:
    """Delete up to `most` episodes of the transaction's agent, oldest first, and return how many."""
    return int(connection.execute(_FORGET_EPISODES, {"most": most}).scalar_one())


def forget_others(connection: Connection, most: int) -> dict[str, int]:
    """Delete up to `most` rows of each other table of the transaction's agent, and return how many by store."""
    return dict(connection.execute(_FORGET_OTHERS, {"most": most}).one()._mapping)


def rows(connection: Connection) -> dict[str, int]:
    """Return how many rows each store holds of the transaction's agent."""
    return {row.store: row.row_count for row in connection.execute(_ROWS)}


def fixed_blocks(connection: Connection, agent_id: str) -> int:
    """Return how many read-only memory blocks the agent has."""
    return int(connection.execute(_FIXED_BLOCKS, {"agent_id": agent_id}).scalar_one())
