"""What the pages are for: seeing what is wrong, mending it, and understanding an answer."""

import json
import re
from collections.abc import Callable
from itertools import product
from uuid import UUID, uuid4

import pytest

from app.bootstrap import Services
from app.console import breakdown
from app.integrity.heads import Signer
from app.integrity.sealing import SealingService
from app.search.query import SearchMode, SearchQuery
from app.semantic.models import NewSemanticMemory
from app.working.models import NewContext
from tests.console.conftest import Visitor
from tests.factories.encoder import FakeEncoder
from tests.factories.episodes import new_episode
from tests.factories.processes import wait_until
from tests.factories.statements import Sql
from tests.factories.workshop import Workshop, store

Come = Callable[..., Visitor]


def text_of(visitor: Visitor, path: str) -> str:
    """Return a page's words: what somebody reads, without the tags."""
    page = visitor.get(path).get_data(as_text=True)
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<main") :]).split())


@pytest.fixture
def poisoned(services: Services, workshop: Workshop, encoder: FakeEncoder) -> list[UUID]:
    """Four episodes of alice's, two of them dead of a cause that is still there."""

    def fail(texts: list[str]) -> None:
        if any("poison" in text for text in texts):
            raise ValueError("no content of this may be seen")

    encoder.before = fail  # type: ignore[assignment]
    receipts = services.episodes.store_many("alice", [new_episode(text) for text in ("a kettle", "poison one", "a train", "poison two")])
    workshop.drain(waits=True)
    return [receipt.episode_id for receipt in receipts]


def test_healthy_and_degraded_are_said_in_words(operator: Visitor, services: Services, workshop: Workshop, sql: Sql) -> None:
    workshop.announce()
    text = text_of(operator, "/console/")
    assert "Memory works, with limits" in text
    assert "Dispatcher ▲" not in text  # A shape is the style sheet's; the word is the page's.
    assert "no dispatcher was heard from lately" in text
    assert "degraded" in text
    sql("INSERT INTO memory_system.workers (worker_id, kind, hostname, pid) VALUES ('dispatcher@test', 'dispatcher', 'test', 1)")
    _wait_for_encoder(services)
    assert "Memory works All 8 components are healthy" in text_of_part(operator, "/console/live/health")


def text_of_part(visitor: Visitor, path: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", visitor.get(path).get_data(as_text=True)).split())


def test_queue_is_drawn_from_samples_that_all_processes_share(operator: Visitor, services: Services, sql: Sql) -> None:
    store(services, 7)
    first = text_of(operator, "/console/")
    assert "Pending 7 due now" in first
    assert "The curves begin now" in first
    (sample,) = services.queue_depths.lately()
    assert (sample.pending, sample.processing, sample.done, sample.dead) == (7, 0, 0, 0)
    operator.get("/console/live/queue")
    assert len(services.queue_depths.lately()) == 1, "one sample in ten seconds"


def test_dead_rows_stand_by_cause_and_are_replayed_by_cause(
    operator: Visitor, poisoned: list[UUID], workshop: Workshop, encoder: FakeEncoder, services: Services
) -> None:
    text = text_of(operator, "/console/dead")
    assert "encoder_error: ValueError 2 1" in text
    assert str(poisoned[1]) in text
    assert str(poisoned[0]) not in text
    assert "poison" not in text
    encoder.before = lambda _: None
    assert operator.post("/console/dead/replay", {"cause": "encoder_error: ValueError"}).status_code == 303
    after = text_of(operator, "/console/dead")
    assert "2 rows have a new set of attempts" in after
    assert "No row is dead" in after
    assert "new set of attempts" not in text_of(operator, "/console/dead"), "said once"
    assert workshop.drain() == 2
    (entry,) = [entry for entry in services.keys.audit(10) if entry.action == "replay dead rows"]
    assert entry.key_id == services.keys.authenticate(operator.key).key_id


def test_dead_rows_are_replayed_one_by_one(operator: Visitor, poisoned: list[UUID]) -> None:
    form = {"ids": [str(poisoned[1])]}
    assert operator.post("/console/dead/replay", form).status_code == 303  # type: ignore[arg-type]
    text = text_of(operator, "/console/dead")
    assert "1 row has a new set of attempts" in text
    assert str(poisoned[1]) not in text
    assert str(poisoned[3]) in text
    assert operator.post("/console/dead/replay", form).status_code == 303  # type: ignore[arg-type]
    assert "none of these is dead any more" in text_of(operator, "/console/dead")


def test_replay_of_nothing_in_particular_is_refused(operator: Visitor) -> None:
    wrong: list[dict[str, str | list[str]]] = [{}, {"ids": "x"}, {"all": "no"}, {"all": "yes", "cause": "x"}, {"cause": "x", "other": "y"}]
    for form in wrong:
        assert operator.post("/console/dead/replay", form).status_code == 422, form


def test_dead_rows_beyond_a_page_are_reached(operator: Visitor, services: Services, sql: Sql) -> None:
    ids = set(map(str, store(services, 120)))
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', last_error = 'a & b', processed_at = now()")
    seen: set[str] = set()
    path, pages = "/console/dead?cause=a+%26+b", 0
    while path:
        page = operator.get(path).get_data(as_text=True)
        seen |= set(re.findall(r'name="ids" value="([^"]+)"', page))
        following = re.search(r'href="([^"]+)#rows">Next', page)
        path, pages = following[1].replace("&amp;", "&") if following else "", pages + 1
    assert (seen, pages) == (ids, 3)


def test_search_shows_results_with_scores_that_add_up(alice: Visitor, services: Services, workshop: Workshop) -> None:
    turns = ["Lena prefers trains to planes", "she never travels on Mondays", "the kettle is on the stove"]
    services.episodes.store_many("alice", [new_episode(text, actor="Lena", session_id="s", importance_score=0.7) for text in turns])
    workshop.drain()
    _wait_for_encoder(services)
    form = {"query": "how does Lena like trains", "recency_weight": "0.3", "importance_weight": "0.2"}
    for headers in ({}, {"HX_Request": "true"}):
        page = alice.post("/console/search", form, **headers).get_data(as_text=True)  # type: ignore[arg-type]
        assert page.index("Lena prefers trains") < page.index("the kettle")
        assert ("<html" in page) == (not headers)
        for part in ("Meaning", "Words", "Speaker", "Session", "Recency", "Importance", "cosine 0."):
            assert part in page
    for hit in re.findall(r'<li class="result">.*?</li>', page, re.DOTALL):
        score = float(re.search(r"<b>([\d.]+)</b>", hit)[1])  # type: ignore[index]
        shares = [float(share) for share in re.findall(r'<td class="number">([\d.]+)</td>', hit)]
        assert len(shares) > 2
        assert sum(shares) == pytest.approx(score, abs=0.005)


def test_breakdown_adds_up_whatever_is_weighed(services: Services, workshop: Workshop) -> None:
    texts = [f"{word} {other} on the stove" for word in ("kettle", "train", "bread") for other in ("red", "old", "new")]
    services.episodes.store_many("alice", [new_episode(text, actor=text[:3], session_id=text[:1], importance_score=0.2) for text in texts])
    workshop.drain()
    _wait_for_encoder(services)
    modes: tuple[SearchMode, ...] = ("hybrid", "vector", "keyword")
    for mode, (recency, importance) in product(modes, ((0.0, 0.0), (0.5, 0.0), (0.4, 1.0))):
        query = SearchQuery("the red kettle of yesterday", 20, mode, recency_weight=recency, importance_weight=importance)
        results = services.search.search("alice", query).results
        assert results
        for hit in results:
            why = breakdown.explain(hit.score, hit.score_breakdown)
            assert sum(part.share for part in why.parts) == pytest.approx(hit.score, abs=1e-4)
            assert all(part.share > 0 for part in why.parts)


def _wait_for_encoder(services: Services) -> None:
    services.search.start_loading()
    wait_until(lambda: services.search.ready()[0], 10, lambda: services.search.ready()[1])


def test_search_takes_filters_and_says_when_nothing_is_found(alice: Visitor, services: Services) -> None:
    services.episodes.store("alice", new_episode("a kettle", tags=("red", "iron"), session_id="kitchen"))
    found = {"query": "kettle", "mode": "keyword", "tags": "red, iron", "session_id": "kitchen"}
    assert "1 result" in alice.post("/console/search", found).get_data(as_text=True)  # type: ignore[arg-type]
    for other in ({"tags": "red, wood"}, {"session_id": "garden"}, {"memory_types": "semantic"}):
        page = alice.post("/console/search", {**found, **other}).get_data(as_text=True)
        assert "Nothing found" in page
        assert "Try other words" in page
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"recency_weight": "2"}, {"mode": "x"}, {"query": " "}):
        assert alice.post("/console/search", {**found, **wrong}).status_code == 422, wrong


def test_every_kind_of_memory_is_shown(alice: Visitor, services: Services) -> None:
    services.episodes.store("alice", new_episode("a kettle"))
    services.semantic.store("alice", NewSemanticMemory(concept="Kettle", definition="what boils water, the kettle"))
    services.working.put("alice", "plan", NewContext({"goal": "buy a kettle"}, 60))
    form: dict[str, str | list[str]] = {"query": "kettle", "mode": "keyword", "memory_types": ["episodic", "semantic", "working"]}
    page = alice.post("/console/search", form).get_data(as_text=True)
    assert "3 results" in page
    assert "semantic memory: Kettle" in page
    assert "working memory plan" in page


def test_administrator_names_an_agent_and_is_offered_those_there_are(admin: Visitor, services: Services) -> None:
    services.episodes.store("alice", new_episode())
    assert '<option value="alice">' in admin.get("/console/search").get_data(as_text=True)
    admin.post("/console/search", {"query": "x", "agent_id": "alice", "mode": "keyword"})
    assert 'name="agent_id" list="agents" value="alice"' in admin.get("/console/search").get_data(as_text=True)


def test_episodes_life_is_told_at_each_stage(
    admin: Visitor, services: Services, workshop: Workshop, poisoned: list[UUID], database_settings: object
) -> None:
    new = services.episodes.store("alice", new_episode("the third kettle")).episode_id

    def life(episode_id: UUID) -> str:
        return text_of(admin, f"/console/episodes/{episode_id}?agent_id=alice")

    assert "pending" in life(new)
    assert "Waiting for its vector" in life(new)
    assert "Not sealed yet" in life(new)
    assert "the third kettle" in life(new)
    assert "5 attempts, and none succeeded. Last error: encoder_error: ValueError." in life(poisoned[1])
    assert "Replay" in life(poisoned[1])
    workshop.drain()
    assert "searchable" in life(new)
    assert "Found by its meaning too" in life(new)
    assert services.episodes.get("alice", new).content_sha256 in life(new)
    SealingService(workshop.database, lambda: Signer("x"), 0.0).seal()
    assert "in range 0 (1 to" in life(new)
    services.episodes.change("alice", new, {"content": "the fourth kettle"})
    assert "once through the service; version 2 is the latest" in life(new)
    services.episodes.delete("alice", new)
    gone = life(new)
    assert "Deleted" in gone
    assert "kettle" not in gone
    assert "Not accepted" in life(uuid4())


def test_episode_is_found_by_its_id(admin: Visitor, services: Services) -> None:
    receipt = services.episodes.store("alice", new_episode("the kettle"))
    path = f"/console/episodes?episode_id=+{receipt.episode_id}+&agent_id="
    sent = admin.get(path)
    assert sent.headers["Location"] == f"/console/episodes/{receipt.episode_id}"
    page = text_of(admin, sent.headers["Location"])
    assert "Name its agent to see the content" in page
    assert "the kettle" not in page
    assert admin.get(f"/console/episodes/{uuid4()}").status_code == 404


def test_pasted_receipts_are_judged(alice: Visitor, operator: Visitor, services: Services) -> None:
    receipt = services.episodes.store("alice", new_episode())
    kept = {name: getattr(receipt, name) for name in ("seq", "version", "content_sha256", "nonce")} | {
        "episode_id": str(receipt.episode_id)
    }
    altered = kept | {"nonce": "0" * 32}
    for pasted in (kept, [kept, altered], {"items": [kept, altered]}):
        for person in (alice, operator):
            page = person.post("/console/episodes/verify", {"receipts": json.dumps(pasted)}).get_data(as_text=True)
            assert "its vector is on the way" in page
            assert ("the receipt is not the one that the ledger has" in page) == (pasted is not kept)
    for wrong in ("", "{", "7", "[]", "{}", json.dumps(kept | {"agent_id": "bob"})):
        answer = alice.post("/console/episodes/verify", {"receipts": wrong})
        assert answer.status_code in {403, 422}, wrong


def test_integrity_says_whether_everything_is_accounted_for(operator: Visitor, services: Services, workshop: Workshop, sql: Sql) -> None:
    assert "No run is recorded yet" in text_of(operator, "/console/integrity")
    store(services, 3)
    workshop.drain()
    SealingService(workshop.database, lambda: Signer("x"), 0.0).seal()
    workshop.services.reconciliation.run("vectors")
    sql("UPDATE nexus_memory.zep_episodic_memory SET embedding_sha256 = NULL WHERE seq = 1")
    workshop.services.reconciliation.run("vectors")
    workshop.drain()
    text = text_of(operator, "/console/integrity")
    assert "3 accepted = 3 searchable + 0 pending + 0 processing + 0 dead + 0 deleted" in text
    assert "Everything accepted is accounted for. Drift 0." in text
    assert "1 range is sealed, up to entry 3" in text
    assert "vectors drift 1 torn 1 torn 1 of 1" in text
    assert "vectors no drift – – 1" in text
    sql("SET session_replication_role = replica")
    sql("DELETE FROM nexus_memory.zep_episodic_memory WHERE seq = 2")
    assert "Drift 1: something that was accepted is unaccounted for" in text_of(operator, "/console/integrity")


def test_keys_are_issued_rotated_and_revoked(admin: Visitor, visitor: Come, services: Services) -> None:
    page = admin.post("/console/keys", {"role": "agent", "name": "Ada's laptop", "agent_id": "ada", "expires_days": "3"})
    secret = re.search(r'<output id="issued">(nxs_agent_\w+)</output>', page.get_data(as_text=True))
    assert page.status_code == 201
    assert secret is not None
    assert secret[1] not in admin.get("/console/keys").get_data(as_text=True)
    ada = visitor("agent", "ada", signed_in=False)
    assert ada.sign_in(secret[1]).status_code == 303
    key_id = services.keys.authenticate(secret[1]).key_id
    rotated = admin.post(f"/console/keys/{key_id}/rotate", {"grace_seconds": "0"})
    new = re.search(r'<output id="issued">(nxs_agent_\w+)</output>', rotated.get_data(as_text=True))
    assert new is not None
    assert not ada.is_signed_in(), "its key ended"
    assert ada.sign_in(new[1]).status_code == 303
    assert admin.post(f"/console/keys/{services.keys.authenticate(new[1]).key_id}/revoke").status_code == 303
    assert not ada.is_signed_in()
    assert "is revoked" in text_of(admin, "/console/keys")
    audit = text_of(admin, "/console/audit")
    for action in ("create key", "rotate key", "revoke key", "sign in"):
        assert action in audit
    assert "admin key" in audit
    assert secret[1] not in audit


def test_last_administrator_stays(admin: Visitor, services: Services, sql: Sql) -> None:
    mine = services.keys.authenticate(admin.key).key_id
    sql("UPDATE memory_system.api_keys SET revoked_at = now() WHERE key_id <> %s", str(mine))
    answer = admin.post(f"/console/keys/{mine}/revoke")
    assert answer.status_code == 409
    assert "last administrator" in answer.get_data(as_text=True)
    assert admin.is_signed_in()


def test_key_that_makes_no_sense_is_refused(admin: Visitor) -> None:
    wrong: list[dict[str, str | list[str]]] = [
        {"role": "agent", "name": "x"},
        {"role": "operator", "name": "x", "agent_id": "ada"},
        {"role": "admin", "name": " "},
        {"role": "admin", "name": "x", "expires_days": "0"},
        {"role": "admin", "name": "x", "expires_days": "soon"},
        {"role": "admin", "name": "x", "key": "mine"},
    ]
    for form in wrong:
        assert admin.post("/console/keys", form).status_code == 422, form


def test_audit_log_goes_on(admin: Visitor) -> None:
    for _ in range(3):
        admin.post("/console/keys", {"role": "operator", "name": "x"})
    page = admin.get("/console/audit?limit=2").get_data(as_text=True)
    older = re.search(r'href="([^"]+)">Older', page)
    assert older is not None
    assert "create key" in text_of(admin, older[1].replace("&amp;", "&"))


def test_empty_system_has_pages_that_say_what_to_do(admin: Visitor) -> None:
    for path, advice in {
        "/console/": "Nothing is stored yet. An agent stores an episode with POST /memory/action",
        "/console/dead": "No row is dead. When one is, its cause stands here",
        "/console/integrity": "Nothing is sealed yet.",
    }.items():
        assert advice in text_of(admin, path)


def test_keys_show_their_ids_and_the_audit_log_their_names(admin: Visitor, services: Services) -> None:
    key = services.keys.create(role="operator", name="one of two", agent_id=None, expires_days=None).key
    assert f'<span class="note mono">{key.key_id}</span>' in admin.get("/console/keys").get_data(as_text=True)
    assert f'one of two<span class="note mono">{key.key_id}</span>' in admin.get("/console/audit").get_data(as_text=True)
