from tests.factories.episodes import new_episode
def test_a(services, workshop, client, agent_key):
    r = services.episodes.store("alice", new_episode("hello wide world"))
    assert workshop.drain() == 1
    from app.search.query import SearchQuery
    a = services.search.search("alice", SearchQuery("wide world"))
    assert a.results[0].episode_id == r.episode_id
    assert client.get("/stats").status_code == 200
def test_b(services, sql): 
    assert sql.one("select current_database()").startswith("nexus_test")
