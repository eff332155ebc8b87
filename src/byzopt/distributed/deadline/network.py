"""Authenticated connections between all pairs of ranks, served by threads, of which each may fail alone.

gloo cannot carry this: a receive that times out there closes the connections of all ranks of the group, and a
receive cannot be asked whether it is done ("Application timeout caused pair closure"). So these are the
standard library's connections (HMAC over a key that rank 0 draws and the group hands out), of which only
bytes of a fixed layout and a bounded length are read. Nothing is unpickled.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from threading import Condition, Thread
from time import monotonic
from typing import Any, NamedTuple, cast

import torch

from byzopt.distributed.communicator import Communicator

(ROW, RELAY, FETCH, GONE, PREPARE, PROMISE, ACCEPT, VOTED, DECIDED, ASK, HERE, OFFER, GET, STATE) = range(14)
_LAYOUT = struct.Struct("!BqqqqQ")
_CHUNK = 1 << 22  # bytes of a payload that go in one piece
_KEY, _TEXT = 32, 256  # bytes of the key, and of a name or an address
_BULKY = frozenset({ROW, RELAY})
_PENDING = 2  # vectors that may wait for a rank which does not take them; older ones are dropped


class Message(NamedTuple):
    """What one rank tells another: a `kind`, the round, three numbers, and perhaps bytes."""

    kind: int
    serial: int
    a: int = 0
    b: int = 0
    c: int = 0
    payload: Any = b""


class Network:
    """Connections of this rank to all others. A collective of `comm`, whose ranks must all be there.

    `heard(rank, message)` and `lost(rank)` are called by the threads that receive. Messages longer than
    `limit` bytes end their sender's connection. Of vectors only the last two wait for a rank that does not
    take them.
    """

    def __init__(
        self,
        comm: Communicator,
        heard: Callable[[int, Message], None],
        lost: Callable[[int], None],
        limit: int = 1 << 34,
    ) -> None:
        self.limit, self._heard, self._lost = limit, heard, lost
        self._links = _connected(comm)
        self._outboxes: dict[int, deque[Message]] = {rank: deque() for rank in self._links}
        self._writing = dict.fromkeys(self._links, False)
        self._turn, self._closed = Condition(), False
        for rank, link in self._links.items():
            for work in (self._receive, self._send):
                Thread(
                    target=work, args=(rank, link), daemon=True, name=f"byzopt-{work.__name__}-{rank}"
                ).start()

    def send(self, rank: int, message: Message) -> None:
        """Have `message` sent to a rank, in order. Returns at once."""
        with self._turn:
            outbox = self._outboxes.get(rank)
            if outbox is None:
                return
            if message.kind in _BULKY:
                waiting = [old for old in outbox if old.kind in _BULKY]
                for old in waiting[: max(0, len(waiting) - _PENDING + 1)]:
                    outbox.remove(old)
            outbox.append(message)
            self._turn.notify_all()

    def tell_all(self, message: Message) -> None:
        """Have `message` sent to all other ranks."""
        for rank in self._links:
            self.send(rank, message)

    def close(self, patience: float) -> None:
        """Give what waits `patience` seconds to leave, then close all connections."""
        end = monotonic() + patience
        with self._turn:
            while (any(self._outboxes.values()) or any(self._writing.values())) and monotonic() < end:
                self._turn.wait(end - monotonic())
            self._closed = True
            self._outboxes.clear()
            self._turn.notify_all()
        for link in self._links.values():
            _shut(link)

    def _send(self, rank: int, link: Connection) -> None:
        while True:
            with self._turn:
                while not self._closed and rank in self._outboxes and not self._outboxes[rank]:
                    self._turn.wait()
                if self._closed or rank not in self._outboxes:
                    return
                message = self._outboxes[rank].popleft()
                self._writing[rank] = True
            try:
                view = memoryview(message.payload)
                link.send_bytes(_LAYOUT.pack(*message[:5], len(view)))
                for start in range(0, len(view), _CHUNK):
                    link.send_bytes(view[start : start + _CHUNK])
            except (OSError, ValueError):
                self._end(rank, link)
                return
            finally:
                with self._turn:
                    self._writing[rank] = False
                    self._turn.notify_all()

    def _receive(self, rank: int, link: Connection) -> None:
        try:
            while True:
                kind, serial, a, b, c, length = _LAYOUT.unpack(link.recv_bytes(_LAYOUT.size))
                if length > self.limit:
                    return
                payload, start = bytearray(length), 0
                while start < length:
                    piece = link.recv_bytes(min(_CHUNK, length - start))
                    payload[start : start + len(piece)] = piece
                    start += len(piece) or length
                self._heard(rank, Message(kind, serial, a, b, c, payload))
        except (EOFError, OSError, ValueError, struct.error, BufferError):
            return
        finally:
            self._end(rank, link)

    def _end(self, rank: int, link: Connection) -> None:
        """The connection to a rank is over."""
        _shut(link)
        with self._turn:
            gone = self._outboxes.pop(rank, None) is not None
            self._turn.notify_all()
        if gone and not self._closed:
            self._lost(rank)


def _connected(comm: Communicator) -> dict[int, Connection]:
    """A connection to every other rank: the higher rank of a pair calls the lower."""
    key = torch.frombuffer(bytearray(os.urandom(_KEY)), dtype=torch.uint8)
    secret = comm.broadcast(key).cpu().numpy().tobytes()
    alone = len(set(_texts(comm, socket.gethostname()))) == 1  # all ranks are on this machine
    with Listener((_address(alone), 0), family="AF_INET", backlog=comm.n, authkey=secret) as listener:
        address, port = cast("tuple[str, int]", listener.address)
        links: dict[int, Any] = {}  # on Windows the types name pipes too, which AF_INET does not make
        for rank, place in enumerate(_texts(comm, f"{address} {port}")[: comm.rank]):
            host, number = place.split()
            links[rank] = Client((host, int(number)), family="AF_INET", authkey=secret)
            links[rank].send_bytes(bytes([comm.rank]))
        while len(links) < comm.n - 1:
            with suppress(AuthenticationError, EOFError, OSError):  # a stranger: it is not let in
                link = listener.accept()
                links[link.recv_bytes(1)[0]] = link
        _texts(comm, "")  # nobody closes its listener before all have called
    return links


def _texts(comm: Communicator, text: str) -> list[str]:
    """Every rank's short text."""
    own = torch.frombuffer(bytearray(text.encode()[:_TEXT].ljust(_TEXT)), dtype=torch.uint8)
    return [line.numpy().tobytes().decode().rstrip() for line in comm.all_gather(own).cpu()]


def _address(alone: bool) -> str:
    """Where the other ranks reach this one: on this machine, or on the way to the job's first machine."""
    if alone:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((os.environ.get("MASTER_ADDR", "192.0.2.1"), 9))  # sends nothing
        return str(way.getsockname()[0])


def _shut(link: Connection) -> None:
    """Wake whoever reads or writes on this connection, for good."""
    with suppress(OSError, ValueError), socket.socket(fileno=os.dup(link.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)
