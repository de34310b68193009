"""The description at /openapi.json against the application: no request made from it ends in a 5xx or in an answer that it does not know."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from app.bootstrap import build_services
from app.config import Settings
from app.factory import create_app
from tests.api.doubles import Doubles
from tests.factories.encoder import FakeEncoder
from tests.factories.servers import TestServers

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("NEXUS_FUZZ_EXAMPLES", "10"))
"""Good requests an operation, and as many bad ones."""

# They take nothing, so nothing of a request can be wrong.
NOTHING_TO_SPOIL = {"/health/live", "/health/ready"}


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: Any, value: Any) -> bytes:
    """Send what was generated as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def operations() -> list[tuple[str, str, GenerationMode]]:
    """Return (method, path, kind of requests) of everything that is described."""
    with TemporaryDirectory() as folder:
        settings_ = Settings(secrets_dir=Path(folder))
        paths = create_app(settings_, Doubles().as_services(settings_)).api_doc["paths"]
    return [
        (method.upper(), path, mode)
        for path, methods in sorted(paths.items())
        for method in sorted(methods)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE or path not in NOTHING_TO_SPOIL
    ]


@dataclass(frozen=True)
class Described:
    """An application on a database of its own, with its description, and an administrator's key to it."""

    schema: Any
    key: str


@pytest.fixture(scope="module")
def described(servers: TestServers) -> Iterator[Described]:
    with servers.database() as name:
        services = build_services(servers.settings_for(name), load=lambda _: FakeEncoder())
        services.search.start_loading()
        while not services.search.ready()[0]:
            time.sleep(0.01)
        key = services.keys.create(role="admin", name="fuzz", agent_id=None, expires_days=None).secret
        yield Described(schemathesis.openapi.from_wsgi("/openapi.json", create_app(services.settings, services)), key)
        services.close()


@pytest.mark.parametrize(("method", "path", "mode"), operations(), ids=lambda value: getattr(value, "value", value))
def test_answers_are_as_described(method: str, path: str, mode: GenerationMode, described: Described) -> None:
    operation = described.schema[path][method]
    # Health says 503 of a system without workers, as it should.
    checks = [check for check in CHECKS if path != "/health" or check is not not_a_server_error]
    headers = {"X-API-Key": described.key} | ({} if path == "/agents/{agent_id}" else {"X-Agent-Id": "alice"})

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=checks)

    check()
