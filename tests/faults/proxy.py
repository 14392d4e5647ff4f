"""A network of the suite's own between a daemon and its MongoDB: it cuts, slows, silences and loses on demand.

    with Proxy(uri=mongod.uri) as network, running_daemon(uri=network.uri, database_name=...):
        network.refuse()                             # nobody listens any more, and what was open is reset
        network.heal()                               # all is well again
        network.cut()                                # what is open is reset, what is new passes
        network.swallow(Direction.REPLIES)           # silence: sockets stay open, bytes vanish
        network.delay(0.2)                           # every message of either direction takes so much longer
        network.hold_after(100, Direction.REQUESTS)  # 100 more bytes pass, the rest vanishes
        network.judge_commands(judge)                # judge(command) says what becomes of it, see Fate

Faults add up until `heal`. The proxy knows as much of MongoDB's wire protocol as it needs to tell one message from
the next, and to name the commands. Its address asks for a direct connection, or the driver would go round it.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from enum import Enum, auto
from types import TracebackType
from typing import Any, NamedTuple, Self

import bson
from addresses import through
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.uri_parser import parse_uri

HEADER = struct.Struct("<iiii")  # length, request id, id of the request that is answered, kind of message
OP_MSG = 2013
LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
START_SECONDS = 10


class Direction(Enum):
    """Which way a message goes."""

    REQUESTS = auto()
    REPLIES = auto()


class Fate(Enum):
    """What becomes of a command: cut is seen at once, swallowed is never heard of again."""

    PASS = auto()
    CUT_REQUEST = auto()
    """The connection breaks before the server sees it."""
    SWALLOW_REQUEST = auto()
    """The server never sees it; the connection stays open."""
    CUT_REPLY = auto()
    """The server executes it; the connection breaks instead of the answer."""
    SWALLOW_REPLY = auto()
    """The server executes it; the answer never comes, the connection stays open."""


class Command(NamedTuple):
    """A command on its way to the server; `at` is the monotonic clock's."""

    name: str
    collection: str | None
    body: dict[str, Any]
    at: float


JudgeCommands = Callable[[Command], Fate]


class Proxy:
    """Relays 127.0.0.1 to the mongod at `uri`, from a thread of its own; a context manager.

    Its methods are called from the test's thread and have taken effect when they return, for every message that
    comes after.
    """

    def __init__(self, *, uri: str) -> None:
        self._target_uri = uri
        ((_, self._target),) = parse_uri(uri)["nodelist"]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._judge: JudgeCommands | None = None
        self._delay_seconds: dict[Direction, float] = {}
        self._allowed_bytes: dict[Direction, int] = {}
        self.port = 0

    @property
    def uri(self) -> str:
        """Where a daemon connects."""
        return through(self._target_uri, self.port, options="directConnection=true")

    @property
    def direct_uri(self) -> str:
        """Where a daemon connects that this network is not between."""
        return through(self._target_uri, self._target, options="directConnection=true")

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._error is not None and kind is None:
            raise self._error

    def heal(self) -> None:
        """Let everything pass again; a connection that lost a part of a message stays silent."""
        self._judge = None
        self._delay_seconds.clear()
        self._allowed_bytes.clear()
        self._call(self._listen())

    def refuse(self) -> None:
        """Listen no more, and reset what is open."""
        self._call(self._shut())

    def cut(self) -> None:
        """Reset every open connection; new ones pass."""
        self._call(self._reset())

    def swallow(self, *directions: Direction) -> None:
        """Let everything in these directions, both unless told, vanish; connections are taken and stay open."""
        for direction in directions or Direction:
            self.hold_after(0, direction)

    def hold_after(self, count: int, direction: Direction) -> None:
        """Let so many more bytes pass in that direction, over all connections together, and swallow the rest."""
        self._allowed_bytes[direction] = count

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Let every message in these directions, both unless told, take so much longer."""
        for direction in directions or Direction:
            self._delay_seconds[direction] = seconds

    def judge_commands(self, judge: JudgeCommands | None) -> None:
        """Ask for the fate of every command from now on, until `heal`, or until told None.

        `judge` is called from the proxy's thread, one command at a time, while everything else waits; an error that
        it raises is raised again at the end of the proxy.
        """
        self._judge = judge

    async def _relay(self, link: "_Link", direction: Direction) -> None:
        """Carry the messages of one connection in one direction until it ends, and end the other one with it."""
        try:
            async for message in _messages(link.readers[direction]):
                if not await self._carried(link, direction, message):
                    return
        except OSError:
            pass
        except Exception as error:  # noqa: BLE001 - raised again at the end, in the test's own thread
            self._error = self._error or error
        finally:
            link.close()

    async def _carried(self, link: "_Link", direction: Direction, message: bytes) -> bool:
        """Give a message its fate; return whether the connection lives on."""
        fate = self._fate(link, direction, message)
        if fate in (Fate.CUT_REQUEST, Fate.CUT_REPLY):
            return False
        if fate is not Fate.PASS:
            return True
        if seconds := self._delay_seconds.get(direction):
            await asyncio.sleep(seconds)
        await link.write(direction, self._allowed_part(direction, message), whole=len(message))
        return True

    def _fate(self, link: "_Link", direction: Direction, message: bytes) -> Fate:
        _, request_id, answered_id, _ = HEADER.unpack_from(message)
        if direction is Direction.REPLIES:
            return link.doomed.pop(answered_id, Fate.PASS)
        command = _command(message) if self._judge else None
        fate = self._judge(command) if self._judge and command else Fate.PASS
        if fate in (Fate.CUT_REPLY, Fate.SWALLOW_REPLY):
            link.doomed[request_id] = fate
            return Fate.PASS
        return fate

    def _allowed_part(self, direction: Direction, message: bytes) -> bytes:
        allowed = self._allowed_bytes.get(direction)
        if allowed is None:
            return message
        self._allowed_bytes[direction] = max(0, allowed - len(message))
        return message[:allowed]

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: those that the server would make report their cancellation as an error.
        task = asyncio.create_task(self._connect(reader, writer), name="connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(reader, writer, server_reader, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(*(self._relay(link, direction) for direction in Direction))
        finally:
            self._links.discard(link)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        for link in list(self._links):
            link.close()

    async def _close(self) -> None:
        await self._shut()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


class _Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self.readers = {Direction.REQUESTS: client_reader, Direction.REPLIES: server_reader}
        self.doomed: dict[int, Fate] = {}
        self._writers = {Direction.REQUESTS: server_writer, Direction.REPLIES: client_writer}
        self._broken: set[Direction] = set()

    async def write(self, direction: Direction, part: bytes, *, whole: int) -> None:
        """Write what is left of a message of `whole` bytes; after a torn one nothing follows."""
        if direction in self._broken:
            return
        if 0 < len(part) < whole:
            self._broken.add(direction)
        if part:
            self._writers[direction].write(part)
            await self._writers[direction].drain()

    def close(self) -> None:
        """Reset both connections."""
        for writer in self._writers.values():
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield message after message until the connection ends."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(HEADER.size)
            length = HEADER.unpack(head)[0]
            yield head + await reader.readexactly(length - HEADER.size)


def _command(message: bytes) -> Command | None:
    """Read the command in a message; None if it is of the kind that only opens a connection."""
    if HEADER.unpack_from(message)[3] != OP_MSG:
        return None
    start = HEADER.size + 5  # behind four bytes of flags and the mark of a section that is the body
    length = struct.unpack_from("<i", message, start)[0]
    body = bson.decode(message[start : start + length], LENIENT)
    name = next(iter(body))
    about = body.get("collection") if name == "getMore" else body[name]
    return Command(name, about if isinstance(about, str) else None, body, time.monotonic())
