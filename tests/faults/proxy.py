"""A TCP proxy that can be told to misbehave: delay, hold, drop, cut, truncate, half-close, lead elsewhere.

``UP`` are the requests on their way to the server, ``DOWN`` the replies. All methods may be called from any thread, and
what they say holds from then on, for the connections that there are too. ``restore`` ends it all. What passes on a
connection is never reordered, and a connection that has lost bytes is reset on ``restore``: TCP does not go on after a
gap either.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

UP, DOWN = "up", "down"
BOTH = (UP, DOWN)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, and what lies in the buffers is lost


class _Lane:
    """One direction of all connections."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.delay = 0.0
        self.dropping = False
        #: So many bytes of what comes next, and then the end.
        self.rest: int | None = None


class _Link:
    """One connection: the client's side and the server's."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.lossy = False
        #: The client was told that no more comes.
        self.ended = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def half_close(self) -> None:
        """Tell the client that no more will come; what it sends still passes."""
        self.ended = True
        with suppress(OSError):
            self.client.write_eof()


class Proxy:
    """In front of one server on loopback; ``port`` is its own, ``target`` the server's."""

    def __init__(self, target: int, host: str = "127.0.0.1", *, address: str = "127.0.0.1") -> None:
        self._host, self._target = host, target
        self._address = address
        self._listener = socket.create_server((address, 0))
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._lanes = {UP: _Lane(), DOWN: _Lane()}
        self._links: set[_Link] = set()
        self._refusing = False
        self.connections = 0
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="proxy", daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        """For ``open_store``."""
        return f"redis://{self._address}:{self.port}/0"

    def delay(self, seconds: float, *directions: str) -> None:
        """Each piece of what passes comes so much later."""
        self._tell(directions, lambda lane: setattr(lane, "delay", seconds))

    def hold(self, *directions: str) -> None:
        """Keep what comes, until ``restore`` lets it through."""
        self._tell(directions, lambda lane: lane.open.clear())

    def drop(self, *directions: str) -> None:
        """Lose what comes, and say nothing of it."""
        self._tell(directions, lambda lane: setattr(lane, "dropping", True))

    def truncate(self, size: int, *directions: str) -> None:
        """Let so many bytes of what comes next through, on one connection, and reset it."""
        self._tell(directions, lambda lane: setattr(lane, "rest", size))

    def reset(self) -> None:
        """Reset the connections that there are; others may be made."""
        self._call(self._reset)

    def cut(self) -> None:
        """Reset the connections that there are, and each that is made, until ``restore``."""
        self._call(lambda: (setattr(self, "_refusing", True), self._reset()))

    def half_close(self) -> None:
        """Tell all clients that no more will come; what they send still reaches the server."""
        self._call(lambda: [link.half_close() for link in list(self._links)])

    def switch(self, target: int) -> None:
        """Lead to another server from now on."""
        self._call(lambda: (setattr(self, "_target", target), self._reset()))

    def restore(self) -> None:
        """Let everything through again."""

        def restore() -> None:
            self._refusing = False
            for link in list(self._links):
                if link.lossy:
                    link.reset()
            for lane in self._lanes.values():
                lane.delay, lane.dropping, lane.rest = 0.0, False, None
                lane.open.set()

        self._call(restore)

    def close(self) -> None:
        """End all connections, and listen no longer."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    # --- in the thread ---

    def _call(self, what: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(), done.set()))
        done.wait()

    def _tell(self, directions: tuple[str, ...], what: Callable[[_Lane], object]) -> None:
        self._call(lambda: [what(self._lanes[direction]) for direction in directions or BOTH])

    def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.call_soon(started.set)
        self._loop.run_forever()
        server.close()
        for lane in self._lanes.values():
            lane.open.set()
        self._reset()
        self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop)))
        self._loop.close()

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            client.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection(self._host, self._target)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pass(client_reader, server, self._lanes[UP], link),
                self._pass(server_reader, client, self._lanes[DOWN], link),
            )
        finally:
            self._links.discard(link)
            client.close()
            server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: _Lane, link: _Link) -> None:
        try:
            while data := await reader.read(65536):
                if lane.delay:
                    await asyncio.sleep(lane.delay)
                await lane.open.wait()
                if lane.dropping:
                    link.lossy = True
                    continue
                if link.ended and writer is link.client:
                    continue
                if lane.rest is not None:
                    data, lane.rest = data[: lane.rest], None
                    writer.write(data)
                    await writer.drain()
                    link.reset()
                    return
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            link.reset()  # one side is gone without a word; the other must hear of it
