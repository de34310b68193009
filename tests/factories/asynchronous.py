"""The asynchronous client as it follows from the synchronous one. `python -m tests.factories.asynchronous` writes it."""

import re
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "app" / "client"

_WORDS = {
    '"""The client: a': '"""The asynchronous client, made from sync.py: a',
    "  # noqa: UP028 - the asynchronous client has the same line": "",
    "import json\nimport time\nimport uuid": "import asyncio\nimport json\nimport uuid",
    "collections.abc import Iterator,": "collections.abc import AsyncIterator,",
    "Iterator[": "AsyncIterator[",
    "class NexusClient:": "class AsyncNexusClient:",
    "httpx.BaseTransport": "httpx.AsyncBaseTransport",
    "httpx.Client(": "httpx.AsyncClient(",
    "def __enter__": "async def __aenter__",
    "def __exit__": "async def __aexit__",
    "        self.close()": "        await self.close()",
    "self._http.close()": "await self._http.aclose()",
    "self._http.request(": "await self._http.request(",
    "time.sleep(": "await asyncio.sleep(",
    "self._send(": "await self._send(",
    "self.list_page(": "await self.list_page(",
    "with self._http.stream": "async with self._http.stream",
    "response.read()": "await response.aread()",
    "for line in response.iter_lines()": "async for line in response.aiter_lines()",
}


def asynchronous(source: str) -> str:
    """Return the source of the asynchronous client."""
    for word, replacement in _WORDS.items():
        if word not in source:
            raise ValueError(f"sync.py has no {word!r} any more")
        source = source.replace(word, replacement)
    return re.sub(r"^    def (?!__init__)", "    async def ", source, flags=re.MULTILINE)


if __name__ == "__main__":
    (CLIENT / "asynchronous.py").write_text(asynchronous((CLIENT / "sync.py").read_text(encoding="utf-8")), encoding="utf-8")
