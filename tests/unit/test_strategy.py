"""Headers of a message: what Celery sends passes, what could make it raise is refused, and what it does not know is left out."""

import pytest
from celery import Celery

from tasks.strategy import _sound_headers

SOUND = {"task": "embedding.embed_batch", "id": "x"}


def test_what_celery_sends_passes() -> None:
    app = Celery("test")
    sent = app.amqp.as_task_v2("an-id", "embedding.embed_batch", args=(), kwargs={"a": 1}).headers
    kept = _sound_headers(sent)
    assert kept == {name: sent[name] for name in kept}
    assert (kept["id"], kept["task"], kept["argsrepr"]) == ("an-id", "embedding.embed_batch", "()")


def test_what_celery_does_not_know_is_left_out() -> None:
    assert _sound_headers({**SOUND, "delivery_info": 5, "compression": "x", "of tomorrow": []}) == _sound_headers(SOUND)


@pytest.mark.parametrize(
    "header",
    [
        {"stamped_headers": 3},
        {"stamps": [1]},
        {"timelimit": [1, None]},
        {"timelimit": "soon"},
        {"eta": "2026-01-01T00:00:00"},
        {"expires": 5},
        {"retries": 1},
        {"shadow": "another name"},
        {"group": "g"},
        {"id": None},
        {"id": 7},
        {"task": []},
        {"root_id": {}},
        {"argsrepr": 5},
    ],
    ids=str,
)
def test_what_could_make_celery_raise_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a header"):
        _sound_headers({**SOUND, **header})
