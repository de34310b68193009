"""A vector serves again for the same input of the same agent, and for nobody else."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import text

from app.bootstrap import Services
from app.embedding import assembly, repository
from app.queue.models import WorkItem
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode, stored_row, vector_text
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop

SAME = "the lighthouse keeper wrote his log every evening"


def store(services: Services, agent_id: str, content: str = SAME, **fields: str) -> UUID:
    return services.episodes.store(agent_id, new_episode(content, **fields)).episode_id


def vectors(sql: Sql, episode_id: UUID) -> list[tuple[object, ...]]:
    return sql(
        "SELECT c.chunk_no, c.char_start, c.char_end, c.agent_id, c.vector_sha256, c.embedding::text, e.embedding::text"
        " FROM nexus_memory.episode_chunks c JOIN nexus_memory.zep_episodic_memory e USING (episode_id)"
        " WHERE episode_id = %s ORDER BY chunk_no",
        str(episode_id),
    )


@pytest.mark.parametrize("content", [SAME, " ".join(f"word{n}" for n in range(900))], ids=["one chunk", "many chunks"])
def test_same_input_of_the_same_agent_is_encoded_once(content: str, services: Services, workshop: Workshop, sql: Sql) -> None:
    first = store(services, "alice", content)
    workshop.drain()
    workshop.encoder.calls.clear()
    second = store(services, "alice", content)
    assert workshop.drain() == 1
    assert workshop.encoder.calls == []
    assert vectors(sql, first) == vectors(sql, second)
    assert vector_text(sql, second) == "present"
    assert stored_row(sql, second).retry_count == 1


def test_same_input_within_one_batch_is_encoded_once(services: Services, workshop: Workshop, sql: Sql) -> None:
    ids = [store(services, "alice") for _ in range(5)]
    other = store(services, "alice", "something else")
    assert workshop.drain() == 6
    assert sum(workshop.encoder.calls) == 2
    assert {vector_text(sql, episode_id) for episode_id in (*ids, other)} == {"present"}


def other_agent_stores_the_same(services: Services, workshop: Workshop) -> None:
    store(services, "alice")
    workshop.drain()
    workshop.encoder.calls.clear()
    store(services, "boris")
    store(services, "carla")
    workshop.drain()
    assert sum(workshop.encoder.calls) == 2, "an agent's text was recognised from another's"


def test_other_agents_text_is_encoded_anew(services: Services, workshop: Workshop) -> None:
    other_agent_stores_the_same(services, workshop)


@pytest.mark.parametrize("where", ["stored", "batch"])
def test_mutant_that_reuses_across_agents_is_noticed(
    where: str, services: Services, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "stored":
        mutant = repository._KNOWN.text.replace("ON c.agent_id = w.agent_id AND", "ON")
        assert mutant != repository._KNOWN.text
        monkeypatch.setattr(repository, "_KNOWN", text(mutant))
    else:
        real: Callable[[WorkItem], assembly.InputKey] = assembly.key_of
        monkeypatch.setattr(assembly, "key_of", lambda item: ("anybody", real(item)[1]))
    with pytest.raises(AssertionError, match="another's"):
        other_agent_stores_the_same(services, workshop)


def test_vector_altered_by_hand_is_not_spread(services: Services, workshop: Workshop, encoder: FakeEncoder, sql: Sql) -> None:
    first = store(services, "alice")
    workshop.drain()
    sql("UPDATE nexus_memory.episode_chunks SET embedding = (SELECT array_agg(0.05 * n)::real[]::vector FROM generate_series(1, 384) n)")
    encoder.calls.clear()
    second = store(services, "alice")
    workshop.drain()
    assert encoder.calls == [1]
    assert vectors(sql, first)[0][5] != vectors(sql, second)[0][5]


def test_input_that_is_split_otherwise_between_actor_and_content_keeps_its_own_places(
    services: Services, workshop: Workshop, sql: Sql
) -> None:
    """Both are encoded as "Ines: hello there", but their contents differ in length."""
    whole = store(services, "alice", "Ines: hello there")
    workshop.drain()
    split = store(services, "alice", "hello there", actor="Ines")
    workshop.drain()
    assert [row[1:3] for row in vectors(sql, whole)] == [(0, 17)]
    assert [row[1:3] for row in vectors(sql, split)] == [(0, 11)]
    both = [store(services, "boris", "Ines: hello there"), store(services, "boris", "hello there", actor="Ines")]
    workshop.drain()
    assert [vectors(sql, episode_id)[0][2] for episode_id in both] == [17, 11]
