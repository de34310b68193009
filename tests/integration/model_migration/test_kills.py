"""A change of model that is killed at any statement of the owner's: nothing goes missing, and the next run ends it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from app.bootstrap import Services
from app.config import Role
from app.db import Database
from app.embedding.migration import ModelMigration
from app.embedding.weights import DEFAULT_SHA256
from app.search.query import SearchQuery
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import OTHER, Working, best, run, store
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

AGENTS = ("alice", "boris")


class Killed(BaseException):
    """The command's process ends here: no handler of the service's runs on it but those that give connections back."""


@contextmanager
def killed_before_statement(database: Database, number: int) -> Iterator[list[str]]:
    """End the process, as seen from PostgreSQL, before the given statement of a login; yield the statements that were sent."""
    sent: list[str] = []

    def kill(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if len(sent) >= number:
            # What a dead process's socket does; PostgreSQL ends the transaction and the locks of the session.
            cursor.connection.close()
            raise Killed
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", kill)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", kill)


@pytest.fixture
def corpus(services: Services, workshop: Workshop, sql: Sql) -> None:
    for agent in AGENTS:
        store(services, agent, f"{agent} saw the weir", f"{agent} saw the lighthouse")
        sql("INSERT INTO nexus_memory.semantic_memories (agent_id, concept, definition) VALUES (%s, 'tide', 'the sea moves')", agent)
    workshop.drain()


def everything_is_found(services: Services, when: str) -> None:
    for agent in AGENTS:
        assert best(services, agent, f"{agent} saw the weir") == (f"{agent} saw the weir", 1.0), when
        query = SearchQuery("tide: the sea moves", mode="vector", limit=1, memory_types=("semantic",))
        (found,) = services.search.search(agent, query).results
        assert round(float(found.score_breakdown["cosine"]), 3) == 1.0, when
    assert services.integrity.identity().drift == 0, when


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("back", [False, True], ids=["to 64 dimensions", "and back to 384"])
def test_run_killed_at_any_statement_is_ended_by_the_next(
    back: bool, services: Services, workshop: Workshop, encoders: dict[str, FakeEncoder], login: Callable[[Role], Database], sql: Sql
) -> None:
    """One run after another gets one statement of the owner's further than the one before, until one ends."""
    there = (encoders[OTHER], "/models/other")
    owner, worker = login("nexus_superuser"), login("nexus_worker")
    wanted, source = there
    with Working(workshop):
        if back:
            run(ModelMigration(owner, worker), *there)
            wanted, source = encoders[DEFAULT_SHA256], ""
        kills = 0
        while True:
            migration = ModelMigration(login("nexus_superuser"), worker)
            try:
                with killed_before_statement(migration._owner, kills) as sent, migration.alone():
                    run(migration, wanted, source)
            except Killed:
                everything_is_found(services, f"killed after {sent[-1] if sent else 'nothing'}")
                kills += 1
            else:
                break
    # Some statements find on a later run that what they would do is done, so that fewer are sent than a run of its own sends.
    assert kills >= 10
    everything_is_found(services, "at the end")
    assert sql("SELECT fingerprint FROM memory_system.embedding_models WHERE is_active") == [(wanted.fingerprint,)]
    assert sql("SELECT count(*)::int FROM memory_system.embedding_models WHERE is_target") == [(0,)]
    for table in ("zep_episodic_memory", "semantic_memories"):
        assert sql(f"SELECT DISTINCT vector_dims(embedding) FROM nexus_memory.{table}") == [(wanted.dimensions,)]
    assert sql("SELECT count(*)::int FROM pg_index WHERE NOT indisvalid") == [(0,)]
    assert sql("SELECT max(retry_count)::int FROM memory_system.embeddings_queue") == [(1,)]
