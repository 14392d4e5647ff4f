"""Stand-ins for mongos: relays in front of one replica set member that say `hello` as a router does.

They show which command travels through which router, and like a mongos they know only the cursors that they opened
themselves. Of mongos itself they show nothing.
"""

import asyncio
import contextlib
import struct
from types import TracebackType
from typing import Any, Final, Self

import bson

HEADER: Final = struct.Struct("<iiii")  # length, request id, id of the request that is answered, kind of message
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
REPLY_HEAD: Final = 20
CURSOR_NOT_FOUND: Final = 43

OF_A_MEMBER: Final = {
    *("arbiters", "hosts", "me", "passives", "primary", "secondary", "setName", "setVersion"),
    *("electionId", "lastWrite", "topologyVersion"),
}
"""What only a member of a replica set says of itself."""


class Router:
    """One of several routers to the member at `port`; they share `cursors`, which says who opened each."""

    def __init__(self, *, port: int, cursors: dict[int, "Router"]) -> None:
        self._member_port = port
        self._cursors = cursors
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.commands: list[str] = []
        self.strays = 0
        """How often it was asked for more of a cursor that another router has opened."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Go away: connections break and nobody listens any more."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        member_reader, member_writer = await asyncio.open_connection("127.0.0.1", self._member_port)
        try:
            while True:
                request = await _read(reader)
                command = _document(request)
                name = next(iter(command))
                self.commands.append(name)
                if name == "getMore" and self._cursors.get(command[name], self) is not self:
                    self.strays += 1
                    writer.write(_message(request, {"ok": 0.0, "errmsg": "no such cursor", "code": CURSOR_NOT_FOUND}))
                    continue
                member_writer.write(request)
                answer = await _read(member_reader)
                writer.write(self._as_router(name, answer))
        finally:
            member_writer.close()

    def _as_router(self, name: str, answer: bytes) -> bytes:
        document = _document(answer)
        if name.lower() in ("hello", "ismaster"):
            document = {key: value for key, value in document.items() if key not in OF_A_MEMBER}
            return _rewritten(answer, document | {"msg": "isdbgrid"})
        if name != "getMore" and (cursor := document.get("cursor", {}).get("id")):
            self._cursors[cursor] = self
        return answer


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(HEADER.size)
    return head + await reader.readexactly(HEADER.unpack(head)[0] - HEADER.size)


def _document(message: bytes) -> dict[str, Any]:
    """Return the document that a message begins with: a command or an answer."""
    kind, body = HEADER.unpack(message[: HEADER.size])[3], message[HEADER.size :]
    if kind == OP_QUERY:
        start = body.index(b"\0", 4) + 9
    elif kind == OP_REPLY:
        start = REPLY_HEAD
    else:
        start = 5  # flags, and the kind of the section
    (length,) = struct.unpack_from("<i", body, start)
    return bson.decode(body[start : start + length])


def _rewritten(answer: bytes, document: dict[str, Any]) -> bytes:
    """Put another document into an answer."""
    _, number, to, kind = HEADER.unpack(answer[: HEADER.size])
    head = answer[HEADER.size :][: REPLY_HEAD if kind == OP_REPLY else 5]
    return _framed(number, to, kind, head + bson.encode(document))


def _message(request: bytes, document: dict[str, Any]) -> bytes:
    """Answer a request."""
    return _framed(0, HEADER.unpack(request[: HEADER.size])[1], OP_MSG, b"\0" * 5 + bson.encode(document))


def _framed(number: int, to: int, kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), number, to, kind) + body
