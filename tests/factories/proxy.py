"""A TCP proxy in a thread, which can pass, swallow, delay and cut what goes through it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_CHUNK_BYTES = 65_536
_CALL_SECONDS = 10.0

T = TypeVar("T")


class Proxy:
    """Stands between processes and a server, so that the way between them can fail while both live.

    Args:
        target_port: Where the server listens, on loopback.

    Attributes:
        port: Where the proxy listens, on loopback.
        delay_seconds: How long each piece of data is held back, in each direction.
        cuts_answers_to: What a request holds that arrives, and whose connection is closed when the server answers, so that nobody learns
            what became of it; empty for every request, None for none.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.cuts_answers_to: bytes | None = None
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._passing: asyncio.Event
        self._server: asyncio.Server
        self._connections: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self) -> "Proxy":
        """Listen on a free port and return the proxy."""
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        """Cut everything and stop listening."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    def black_hole(self) -> None:
        """Accept connections and data, and pass nothing on: to each side the other is silent."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def pass_on(self) -> None:
        """Pass data again, what was held back included, without delay."""
        self.delay_seconds = 0.0
        self._loop.call_soon_threadsafe(self._passing.set)

    def lead_nowhere(self) -> None:
        """Close every connection there is and every new one, as if the server were away."""
        self._target_port = 1
        self.cut()

    def cut(self) -> int:
        """Close every connection there is and return how many there were; new ones are served."""
        return self._call(self._cut())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_SECONDS)

    async def _listen(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> int:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    async def _close(self) -> None:
        # A server that is closed while it accepts leaves what it accepts open: first it accepts nothing more, then that is done.
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        self._is_closed = True
        while accepting := asyncio.all_tasks() - self._connections - {asyncio.current_task()}:
            await asyncio.wait(accepting, timeout=0.1)
            await self._cut()
        await self._cut()
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:
            _abort(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        is_doomed = asyncio.Event()

        def look(data: bytes) -> None:
            if self.cuts_answers_to is not None and self.cuts_answers_to in data:
                is_doomed.set()

        pumps = [
            asyncio.ensure_future(self._pump(reader, back, look)),
            asyncio.ensure_future(self._pump(there, writer, lambda _: None, is_doomed)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Before anything is waited for: a cut may come in between.
            _abort(back)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, look: Callable[[bytes], None], is_cut: asyncio.Event | None = None
    ) -> None:
        while data := await source.read(_CHUNK_BYTES):
            look(data)
            if is_cut is not None and is_cut.is_set():
                return
            await self._passing.wait()
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            sink.write(data)
            await sink.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()
