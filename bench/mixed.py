"""Many agents at once, each doing a bit of everything: `python -m bench.mixed`. Every answer is counted; none may be an error.

It is apart from the other parts because it takes as long as one says, and proves a count, not a speed.
"""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import click
import httpx
from rich.console import Console

from app.client.asynchronous import AsyncNexusClient
from app.client.transport import NexusApiError
from bench.figures import percentile
from bench.own_stack import running_stack
from bench.texts import short_texts


@dataclass
class Tally:
    """What came back: statuses of every attempt, seconds by kind of call, and errors by their code."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)


class Counting(httpx.AsyncBaseTransport):
    """Counts the status of every attempt, also of one that the client repeats."""

    def __init__(self, tally: Tally) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._tally = tally

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on."""
        response = await self._inner.handle_async_request(request)
        self._tally.statuses[response.status_code] += 1
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class Agent:
    """One agent with a memory of its own, so that what it asks for is there."""

    def __init__(self, client: AsyncNexusClient, number: int, texts: list[str], tally: Tally) -> None:
        self._client = client
        self._chance = random.Random(number)
        self._texts = texts
        self._tally = tally
        self._episodes: list[str] = []
        self._acts = (
            [self.store] * 6
            + [self.search] * 5
            + [self.recent, self.browse, self.change, self.delete, self.working, self.semantic, self.block]
        )

    async def live(self, until: float) -> None:
        """Act until the time is over."""
        await self.store()
        while time.monotonic() < until:
            act = self._chance.choice(self._acts)
            started = time.monotonic()
            try:
                await act()
            except NexusApiError as error:
                self._tally.errors[f"{act.__name__}: {error}"[:200]] += 1
            self._tally.seconds.setdefault(act.__name__, []).append(time.monotonic() - started)

    def _text(self) -> str:
        return self._chance.choice(self._texts)

    async def store(self) -> None:
        """Store an episode."""
        receipt = await self._client.store(self._text(), session_id=f"s{self._chance.randrange(3)}", tags=["mixed"])
        self._episodes.append(receipt["episode_id"])

    async def search(self) -> None:
        """Look for a text that may be there."""
        await self._client.search(self._text(), mode=self._chance.choice(["hybrid", "vector", "keyword"]))

    async def recent(self) -> None:
        """Read the latest."""
        await self._client.recent()

    async def browse(self) -> None:
        """List a page, and the turns around its first."""
        page = await self._client.list_page(limit=20, tags_all=["mixed"])
        await self._client.context(page["items"][0]["episode_id"])

    async def change(self) -> None:
        """Give an episode another text."""
        await self._client.change(self._chance.choice(self._episodes), {"content": self._text()})

    async def delete(self) -> None:
        """Delete an episode, unless it is the last."""
        if len(self._episodes) > 1:
            await self._client.delete(self._episodes.pop(self._chance.randrange(len(self._episodes))))

    async def working(self) -> None:
        """Set a working memory and read it."""
        await self._client.put_working("now", {"thought": self._text()}, ttl_seconds=600)
        await self._client.get_working("now", refresh=True)

    async def semantic(self) -> None:
        """Store a semantic memory."""
        await self._client.store_semantic(f"concept {self._chance.randrange(50)}", self._text())

    async def block(self) -> None:
        """Set a memory block and keep a checkpoint."""
        await self._client.put_block("persona", self._text())
        await self._client.checkpoint({"step": len(self._episodes)})


async def _load(url: str, key: str, clients: int, seconds: float) -> Tally:
    tally, texts = Tally(), short_texts(None)
    opened = [AsyncNexusClient(url, key, f"mixed-{number}", transport=Counting(tally)) for number in range(clients)]
    until = time.monotonic() + seconds
    try:
        await asyncio.gather(*(Agent(client, number, texts, tally).live(until) for number, client in enumerate(opened)))
    finally:
        for client in opened:
            await client.close()
    return tally


@click.command()
@click.option("--minutes", type=float, default=10.0, show_default=True, help="How long.")
@click.option("--clients", type=click.IntRange(1, 500), default=50, show_default=True, help="How many agents at once.")
def main(minutes: float, clients: int) -> None:
    """Let agents do a bit of everything at once, and count what comes back; exit status 1 unless all is well."""
    console = Console(stderr=True, highlight=False)
    with running_stack(lambda line: console.print(f"[dim]{line}[/dim]")) as stack:
        tally = asyncio.run(_load(stack.url, stack.headers["X-API-Key"], clients, minutes * 60))
        stack.wait_until_searchable()
        drift = stack.value("SELECT drift FROM memory_system.accounting_identity()")
    calls = {
        name: {"calls": len(found), "p50_ms": round(percentile(found, 0.5) * 1000, 1), "p99_ms": round(percentile(found, 0.99) * 1000, 1)}
        for name, found in sorted(tally.seconds.items())
    }
    answers = {str(status): count for status, count in sorted(tally.statuses.items())}
    click.echo(
        json.dumps(
            {"clients": clients, "minutes": minutes, "answers": answers, "errors": tally.errors, "drift": drift, "calls": calls}, indent=1
        )
    )
    if tally.errors or drift or any(status >= httpx.codes.INTERNAL_SERVER_ERROR for status in tally.statuses):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
