"""What both clients share: the request that a method makes, when it is tried again, and what an error answer becomes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_OTHER_SERVICE = "what answered is not NEXUS Cerebro"


class NexusApiError(Exception):
    """The service refused a request, or could not be reached.

    Attributes:
        status: HTTP status; None when there was no answer.
        code: Stable word for programs, as in the API reference; `unreachable` when there was no answer.
        request_id: Under which the service's log has it; empty when there was no answer.
        errors: Which fields are wrong, when some are.
    """

    def __init__(
        self, status: int | None, code: str, detail: str, request_id: str = "", errors: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(f"{status or 'no answer'} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.errors = errors or []


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    `is_safe` says that a second time does nothing that the first did not do, so it may be sent again when no answer came.
    """

    method: str
    path: str
    json: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_safe: bool = True

    def arguments(self) -> dict[str, Any]:
        """Return the call as httpx takes it; what is None is left out."""
        given: dict[str, Any] = {"headers": dict(self.headers)}
        if self.json is not None:
            given["json"] = without_none(self.json) if isinstance(self.json, dict) else self.json
        if self.content is not None:
            given["content"] = self.content
        params = {name: value for name, value in self.params.items() if value is not None}
        if params:
            given["params"] = params
        return given


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are not None: to the service, leaving out means the default."""
    return {name: value for name, value in values.items() if value is not None}


def segment(value: str) -> str:
    """Return a value as one segment of a path; also one that would be a step in it, which the service refuses by name."""
    return quote(str(value), safe="").replace(".", "%2E") if str(value) in {".", ".."} else quote(str(value), safe="")


def wait_seconds(attempt: int, response: httpx.Response | None) -> float:
    """Return how long to wait before the next attempt: what the service says, else twice as long each time."""
    if response is not None and response.headers.get("Retry-After", "").isdigit():
        return min(float(response.headers["Retry-After"]), _LONGEST_WAIT_SECONDS)
    return min(_FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1), _LONGEST_WAIT_SECONDS)


def may_retry(call: Call, response: httpx.Response | None, attempt: int) -> bool:
    """Return whether to send a call again: the service is busy or away, or no answer came and a second time does no harm."""
    if attempt >= ATTEMPTS:
        return False
    if response is None:
        return call.is_safe
    return response.status_code == httpx.codes.TOO_MANY_REQUESTS or (
        response.status_code == httpx.codes.SERVICE_UNAVAILABLE and call.is_safe
    )


def result(response: httpx.Response) -> Any:
    """Return the answer's JSON object.

    Raises:
        NexusApiError: The service refused the request, or what answered is not this service.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise not_this_service(response)
    if response.is_success:
        return body
    raise NexusApiError(
        response.status_code,
        str(body.get("code", "unknown")),
        str(body.get("detail", "")),
        str(body.get("request_id", "")),
        body.get("errors"),
    )


def member(response: Mapping[str, Any], name: str) -> Any:
    """Return a member that the service always answers.

    Raises:
        NexusApiError: It is not there, so what answered is not this service.
    """
    if name not in response:
        raise NexusApiError(httpx.codes.OK, "not_this_service", _OTHER_SERVICE)
    return response[name]


def line_of(response: httpx.Response, line: str) -> dict[str, Any]:
    """Return a line of an export.

    Raises:
        NexusApiError: It is no JSON object: what answered is not this service, or it was cut off in the line.
    """
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise not_this_service(response)
    return value


def not_this_service(response: httpx.Response) -> NexusApiError:
    """Return the error of an answer that the service would not give."""
    return NexusApiError(response.status_code, "not_this_service", _OTHER_SERVICE)


def unreachable(error: httpx.HTTPError) -> NexusApiError:
    """Return the error of a request that got no answer."""
    return NexusApiError(None, "unreachable", f"the service did not answer ({type(error).__name__})")


def client_settings(base_url: str, api_key: str, agent_id: str | None, timeout_seconds: float, *, trust_env: bool) -> dict[str, Any]:
    """Return the arguments of an httpx client."""
    headers = {"Authorization": f"Bearer {api_key}"} | ({"X-Agent-Id": agent_id} if agent_id is not None else {})
    return {"base_url": base_url, "headers": headers, "timeout": httpx.Timeout(timeout_seconds, connect=5.0), "trust_env": trust_env}
