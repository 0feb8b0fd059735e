"""How the processes of a run talk: a line of JSON asked, a line of JSON answered, over a Unix socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Message = dict[str, Any]


def serve(path: Path, answer: Callable[[Message], Message]) -> socket.socket:
    """Answer whoever connects, each in a thread; the listening socket."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
    return listener


def _accept(listener: socket.socket, answer: Callable[[Message], Message]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_converse, args=(client, answer), daemon=True).start()


def _converse(client: socket.socket, answer: Callable[[Message], Message]) -> None:
    with suppress(OSError), client, client.makefile("rb") as requests:
        for line in requests:
            client.sendall(json.dumps(answer(json.loads(line))).encode() + b"\n")


class Caller:
    """One thread's connections to the processes that it asks."""

    def __init__(self, directory: Path, patience: float) -> None:
        self._directory = directory
        self._patience = patience
        self._open: dict[str, tuple[socket.socket, Any]] = {}

    def ask(self, process: str, message: Message) -> Message:
        """The answer. ``{"result": "no_reply"}`` where none came in time: it may have been carried out or not."""
        try:
            connection, replies = self._connect(process)
            connection.sendall(json.dumps(message).encode() + b"\n")
            line = replies.readline()
            if line.endswith(b"\n"):
                answer: Message = json.loads(line)
                return answer
        except OSError:
            pass
        self.forget(process)
        return {"result": "no_reply"}

    def forget(self, process: str) -> None:
        """Close the connection to a process: an answer that is still to come must not be taken for another's."""
        if (open_one := self._open.pop(process, None)) is not None:
            for end in open_one[::-1]:
                end.close()

    def close(self) -> None:
        """Close all connections."""
        for process in list(self._open):
            self.forget(process)

    def _connect(self, process: str) -> tuple[socket.socket, Any]:
        if process not in self._open:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(self._patience)
            try:
                connection.connect(str(socket_path(self._directory, process)))
            except OSError:
                connection.close()
                raise
            self._open[process] = connection, connection.makefile("rb")
        return self._open[process]


def socket_path(directory: Path, process: str) -> Path:
    """Where a process listens."""
    return directory / f"{process}.sock"
