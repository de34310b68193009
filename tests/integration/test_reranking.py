"""The optional cross-encoder: off unless it is named, beside the requests, and never in the way of a search."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from app.bootstrap import Services, build_services
from app.config import Settings
from app.embedding.models import EmbeddingModel
from app.embedding.weights import find_weights
from app.search.query import SearchHit, SearchMode, SearchQuery
from app.search.reranking import Reranker, load_cross_encoder
from app.search.service import SearchService
from tests.factories.encoder import FakeEncoder
from tests.factories.model_change import store
from tests.factories.processes import wait_until
from tests.factories.workshop import Workshop

TEXTS = [f"The lighthouse keeper wrote line {n} of the log." for n in range(30)]
QUERY = "what did the keeper of the lighthouse write"


def by_length(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Judge the longest text the best."""
    return np.array([len(text) for _, text in pairs], dtype=np.float32)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real cross-encoder, small and of random weights: what it judges is nonsense, and always the same."""
    folder = tmp_path_factory.mktemp("models") / "judge"
    tokenizer = AutoTokenizer.from_pretrained(find_weights("").folder)
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "num_labels": 1}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def reranking(database_settings: Settings, encoder: FakeEncoder) -> Iterator[Callable[..., Services]]:
    """Make services with a cross-encoder."""
    opened: list[Services] = []

    def make(model: str, candidates: int = 20) -> Services:
        settings = database_settings.model_copy(update={"reranker_model": model, "reranker_candidates": candidates})

        def load(_: EmbeddingModel) -> Any:
            return encoder

        opened.append(build_services(settings, load=load))
        opened[-1].search.start_loading()
        wait_until(lambda: opened[-1].search.ready()[0], 10, "the encoder is loaded")
        return opened[-1]

    yield make
    for services in opened:
        services.close()


def marks(hits: Sequence[SearchHit]) -> list[Any]:
    return [hit.score_breakdown.get("reranked") for hit in hits]


# With random weights the marks are all near one half: their rounding must not decide.
def test_real_cross_encoder_orders_the_best_and_leaves_the_rest_behind(
    cross_encoder: Path, reranking: Callable[..., Services], services: Services, workshop: Workshop
) -> None:
    store(services, "alice", *TEXTS)
    workshop.drain()
    ours = reranking(str(cross_encoder), candidates=8)
    before = services.search.search("alice", SearchQuery(QUERY, limit=12)).results
    wait_until(lambda: ours.search._reranker is not None and ours.search._reranker._judge is not None, 60, "the cross-encoder is loaded")
    after = ours.search.search("alice", SearchQuery(QUERY, limit=12)).results
    judge = load_cross_encoder(str(cross_encoder))
    judged = dict(zip([hit.content for hit in before[:8]], judge([(QUERY, hit.content) for hit in before[:8]]), strict=True))
    assert [hit.content for hit in after[:8]] == sorted(judged, key=lambda content: -judged[content])
    assert [hit.content for hit in after[:8]] != [hit.content for hit in before[:8]]
    assert [hit.content for hit in after[8:]] == [hit.content for hit in before[8:]]
    assert marks(after) == [pytest.approx(judged[hit.content], abs=1e-4) for hit in after[:8]] + [None] * 4
    assert all(0 <= second.score <= first.score <= 1 for first, second in pairwise(after))
    assert "reranked" not in before[0].score_breakdown


def test_a_few_results_are_chosen_from_all_that_it_reads(services: Services, workshop: Workshop) -> None:
    store(
        services,
        "alice",
        *TEXTS,
        "The keeper of the lighthouse, of whom all this tells, wrote of the storm and of the long night after it.",
    )
    workshop.drain()
    reranker = Reranker("any", 31, load=lambda _: by_length)
    reranker._load_once()
    search = SearchService(services.database, services.search._encoder, reranker)
    (found,) = search.search("alice", SearchQuery(QUERY, limit=1)).results
    assert found.content.endswith("after it.")


@pytest.mark.parametrize(
    ("mode", "weight"),
    [("vector", 0.0), ("keyword", 0.0), ("hybrid", 0.5)],
    ids=["by meaning", "by words", "with a weight of the caller's"],
)
def test_what_the_caller_chose_is_kept(mode: SearchMode, weight: float, services: Services, workshop: Workshop) -> None:
    store(services, "alice", *TEXTS)
    workshop.drain()
    reranker = Reranker("any", 20, load=lambda _: by_length)
    reranker._load_once()
    search = SearchService(services.database, services.search._encoder, reranker)
    query = SearchQuery(QUERY, mode=mode, importance_weight=weight)
    found = search.search("alice", query).results
    assert [hit.id for hit in found] == [hit.id for hit in services.search.search("alice", query).results]
    assert marks(found) == [None] * 10


@pytest.mark.parametrize("model", ["/nowhere", "no/such-model"])
def test_model_that_is_not_here_is_named_once_and_searches_go_on(
    model: str, reranking: Callable[..., Services], services: Services, workshop: Workshop
) -> None:
    store(services, "alice", *TEXTS)
    workshop.drain()
    with capture_logs() as logs:
        ours = reranking(model)
        wait_until(lambda: any(line["event"] == "reranker_not_loaded" for line in logs), 30, "the log says so")
    assert "RERANKER_MODEL" in next(line for line in logs if line["event"] == "reranker_not_loaded")["action"]
    query = SearchQuery(QUERY)
    assert [hit.id for hit in ours.search.search("alice", query).results] == [
        hit.id for hit in services.search.search("alice", query).results
    ]


def broken(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    raise RuntimeError("out of memory")


def unsound(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    return np.full(len(pairs), np.nan, dtype=np.float32)


@pytest.mark.parametrize("judge", [broken, unsound])
def test_judge_that_fails_leaves_the_order(judge: Any, services: Services, workshop: Workshop) -> None:
    store(services, "alice", *TEXTS)
    workshop.drain()
    reranker = Reranker("any", 20, load=lambda _: judge)
    reranker._load_once()
    with capture_logs() as logs:
        found = SearchService(services.database, services.search._encoder, reranker).search("alice", SearchQuery(QUERY)).results
    assert [hit.id for hit in found] == [hit.id for hit in services.search.search("alice", SearchQuery(QUERY)).results]
    assert [line["event"] for line in logs] == ["reranking_failed"]
