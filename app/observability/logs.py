"""JSON logs of every process, with secrets and memory content taken out before they are written."""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import orjson
import structlog

from app.config import Settings

Event = MutableMapping[str, Any]

_HIDDEN = "[hidden]"
_HIDDEN_KEYS = frozenset(
    (
        "content",
        "password",
        "passwd",
        "secret",
        "secrets",
        "token",
        "authorization",
        "x-api-key",
        "x_api_key",
        "api_key",
        "apikey",
        "admin_api_key",
        "metrics_api_key",
        "cookie",
        "set-cookie",
        "nonce",
        "query",
        "body",
        "action_details",
        "context_state",
        "metadata",
        "active_content",
        "state_data",
        "definition",
        "value",
        "parameters",
        "params",
        "dsn",
    )
)
_SECRET_TEXT = (
    ("nxs_", re.compile(r"nxs_[A-Za-z0-9_]+"), "nxs_" + _HIDDEN),
    ("://", re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*(?=@)"), _HIDDEN),
)
_MAX_DEPTH = 6

_QUIET_LOGGERS = ("httpx", "httpcore")
"""They name whole URLs, in which sessions and contexts stand, at INFO and below."""


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        for sign, pattern, replacement in _SECRET_TEXT:
            if sign in value:
                value = pattern.sub(replacement, value)
        return value
    if depth >= _MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, dict):
        return {str(key): _HIDDEN if str(key).lower() in _HIDDEN_KEYS else _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    return value


def redact(_logger: Any, _method: str, event: Event) -> Event:
    """Replace the values of telling keys, and keys and passwords inside any text."""
    for key, value in event.items():
        if isinstance(key, str) and key.startswith("_"):
            continue  # ProcessorFormatter's own record keeping, which it removes itself.
        event[key] = _HIDDEN if key.lower() in _HIDDEN_KEYS else _clean(value)
    return event


def _describe(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    described: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    sqlstate = getattr(getattr(error, "orig", error), "pgcode", None)
    if isinstance(sqlstate, str):
        described["sqlstate"] = sqlstate
    return described


def describe_exception(_logger: Any, _method: str, event: Event) -> Event:
    """Replace exc_info by classes and frames of the error and its causes, without any message.

    Messages of the database and of validators quote what they refuse, which is memory content.
    """
    info = event.pop("exc_info", None)
    if not info:
        return event
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
    chain: list[dict[str, Any]] = []
    while error is not None and len(chain) < 5:
        chain.append(_describe(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    event["exception"] = chain
    return event


def _to_json(event: Event, **_options: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


class _Unfailing:
    """A stream whose reader may be gone: a line is lost then, and never the answer to the request that it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(line)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(settings: Settings, process_name: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process, the standard library's too, to one stream.

    Args:
        settings: log_level and log_format.
        process_name: What the lines name as `process`: api, dispatcher, worker, beat.
        stream: Where to; stderr by default, which leaves stdout to the answers of commands.
    """
    target = stream if stream is not None else sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level]

    def name_process(_logger: Any, _method: str, event: Event) -> Event:
        event["process"] = process_name
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
        describe_exception,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unfailing(target))),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(target, level, shared, renderer)


def _route_standard_library(
    target: TextIO, level: int, shared: list[structlog.typing.Processor], renderer: structlog.typing.Processor
) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
