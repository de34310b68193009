"""Dead rows as five failures leave them, of episodes that hold a secret."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app.bootstrap import Services
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql

SECRET = "the launch code is 0451"


def store(services: Services, agent_id: str, count: int, **fields: Any) -> list[UUID]:
    """Store episodes that hold the secret and return their ids."""
    episodes = [new_episode(f"{SECRET} {number}", **fields) for number in range(count)]
    return [receipt.episode_id for receipt in services.episodes.store_many(agent_id, episodes)]


def kill(sql: Sql, ids: Sequence[UUID], cause: str | None, died: str = "now()") -> None:
    """Make rows dead as five failures leave them."""
    sql(
        f"UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = %s, processed_at = {died}"
        " WHERE target_id = ANY (%s::uuid[])",
        cause,
        [str(target_id) for target_id in ids],
    )
