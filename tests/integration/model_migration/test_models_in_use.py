"""Which process may work with which model: by fingerprint, and never with another in its place."""

from dataclasses import replace

import pytest

from app.bootstrap import Services
from app.embedding.models import EmbeddingModel, ModelsInUse
from app.embedding.weights import DEFAULT_SHA256, find_source
from app.errors import ConfigurationError, EncoderUnavailable
from app.search.encoding import QueryEncoder
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import OTHER, Migrate, store
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop


def test_worker_without_the_new_model_gives_its_rows_back_uncharged(
    services: Services, workshop: Workshop, migration: Migrate, encoders: dict[str, FakeEncoder], sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(services, "alice", "one")
    workshop.drain()
    target = migration().begin(encoders[OTHER], "/models/other")
    sql("SELECT memory_system.enqueue_for_model('alice', %s::smallint, 10)", target.model_id)

    def missing(_: EmbeddingModel) -> FakeEncoder:
        raise ConfigurationError("not on this machine")

    monkeypatch.setattr(workshop.embedding, "_load", missing)
    (batch,) = workshop.claim()
    assert workshop.process(batch).lost == 1
    assert sql("SELECT state, retry_count::int, last_error, due_at > now() FROM memory_system.embeddings_queue WHERE model_id = 2") == [
        ("pending", 0, "model_missing: configuration_error", True)
    ]


ACTIVE = EmbeddingModel(1, "all-MiniLM-L6-v2", "v", 384, DEFAULT_SHA256)


def test_shipped_model_is_found_and_another_one_is_refused_by_name() -> None:
    assert find_source("", ACTIVE) == ""
    other = EmbeddingModel(2, "other", "v", 64, OTHER)
    with pytest.raises(ConfigurationError, match="another model"):
        find_source("", other)


def test_every_vector_names_the_fingerprint_of_its_model(services: Services, workshop: Workshop, sql: Sql) -> None:
    store(services, "alice", "one")
    workshop.drain()
    assert sql("SELECT DISTINCT m.fingerprint FROM nexus_memory.episode_chunks JOIN memory_system.embedding_models m USING (model_id)") == [
        (DEFAULT_SHA256,)
    ]


def test_api_that_cannot_load_the_new_model_says_so_and_tries_again(
    services: Services, monkeypatch: pytest.MonkeyPatch, encoders: dict[str, FakeEncoder]
) -> None:
    active = EmbeddingModel(1, "a", "a", 384, DEFAULT_SHA256)
    target = EmbeddingModel(2, "b", "b", 64, OTHER, "/models/other", is_active=False)
    in_use = [ModelsInUse(active, target)]
    is_missing = [True]

    def load(model: EmbeddingModel) -> FakeEncoder:
        if model.model_id == 2 and is_missing[0]:
            raise EncoderUnavailable("not here")
        return encoders[model.fingerprint]

    query_encoder = QueryEncoder(load, lambda: in_use[0])
    query_encoder._look()
    assert query_encoder.ready() == (True, "")
    in_use[0] = ModelsInUse(replace(target, is_active=True))
    query_encoder._look()
    assert query_encoder.ready() == (False, "not here")
    with pytest.raises(EncoderUnavailable, match="not here"):
        query_encoder.models(patience_seconds=0)
    is_missing[0] = False
    monkeypatch.setattr("app.search.encoding._RETRY_SECONDS", 0.0)
    query_encoder._look()
    assert query_encoder.models(0).active.model_id == 2
    query_encoder.stop()
