"""Whether the running stack can do its work: asked over HTTP, as a client would."""

import json
import urllib.error
import urllib.request
from typing import Any

from app.config import Settings

# A proxy of the machine must not stand between the stack and itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_REQUEST_SECONDS = 10.0
# Beside what /health/ready asks for. A backlog, dead rows or a drift are an operator's work, who needs the stack for it.
_NEEDED = ("dispatcher", "worker")


def base_url(host: str, port: int) -> str:
    """Return the URL at which a client on this machine reaches the API."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - nothing is bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def problem(settings: Settings) -> str | None:
    """Return what is not ready yet, or None when the API answers and every worker reports itself."""
    url = base_url(settings.host, settings.port)
    status, body = _get(f"{url}/health/ready", {})
    if status != 200:
        return f"the API is not ready ({_reason(status, body)})"
    status, body = _get(f"{url}/health", {"X-API-Key": settings.secret("admin_api_key")})
    return _components_problem(status, body)


def _components_problem(status: int, body: Any) -> str | None:
    """Return which processes do not report themselves yet, or None when all do."""
    components = body.get("components") if isinstance(body, dict) else None
    if not isinstance(components, dict):
        return f"/health does not answer ({_reason(status, body)})"
    waiting = [name for name in _NEEDED if _status(components.get(name)) != "healthy"]
    return f"not alive yet: {', '.join(waiting)}" if waiting else None


def _status(component: Any) -> Any:
    return component.get("status") if isinstance(component, dict) else None


def _get(url: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Return status and decoded JSON body; status 0 and the reason when there was no answer."""
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - base_url makes it, always http
        with _OPENER.open(request, timeout=_REQUEST_SECONDS) as answer:
            return answer.status, _decode(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _decode(error.read())
    except OSError as error:
        return 0, str(getattr(error, "reason", error))


def _decode(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _reason(status: int, body: Any) -> str:
    if status == 0:
        return str(body)
    detail = body.get("detail") or body.get("status") if isinstance(body, dict) else None
    return f"HTTP {status}: {detail}" if detail else f"HTTP {status}"
