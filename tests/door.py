"""A door in front of a server, which can be shut, or lose answers: how a service goes away in the middle."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit


class Door:
    """Passes on what comes to `address` to the server behind it."""

    def __init__(self, server: str) -> None:
        there = urlsplit(server)
        self._server = (there.hostname, there.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.answers = self.lost = 0
        self.shut = False
        """Whether nobody gets through."""
        self.loses: Callable[[int], bool] = lambda _: False
        """Whether an answer is lost, by how many there were before; the connection breaks then."""
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Shut it at once: what is under way breaks, too."""
        self.shut = True
        with self._lock:
            for end in self._open:
                _break(end)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self.shut:
                _break(client)
                continue
            server = socket.create_connection(self._server)
            with self._lock:
                self._open |= {client, server}
            for answer, source, sink in ((False, client, server), (True, server, client)):
                threading.Thread(target=self._pass, args=(answer, source, sink), daemon=True).start()

    def _pass(self, answer: bool, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answer:
                    self.answers += 1
                    if self.shut or self.loses(self.answers):
                        self.lost += 1
                        break
                sink.sendall(data)
        for end in (source, sink):
            _break(end)


def _break(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
