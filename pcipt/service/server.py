"""The control socket: who may ask, how much, and how long; the answers come from a table of handlers.

The peer's credentials decide before a byte is parsed. No peer can delay the engine: sockets never block, and
what a peer may send, keep open or leave unread is bounded.
"""

import contextlib
import grp
import os
import selectors
import socket
import stat
import struct
from collections import Counter
from collections.abc import Callable, Mapping

from pcipt.errors import InputError, NoSuchDeviceError, PciptError
from pcipt.service.loop import Loop
from pcipt.service.protocol import (
    INTERFACE,
    METHODS,
    REQUEST_LIMIT,
    FrameError,
    Message,
    decode_frame,
    error,
    reply,
)

CONNECTIONS = 64
CONNECTIONS_PER_UID = 16
REQUESTS = 64  # of one peer in one go; the engine's turn comes after them
PATIENCE = 10.0  # seconds in which a peer must have sent its request or read its answer
OUTPUT_LIMIT = 16 * 1024 * 1024
STREAM_LIMIT = 256 * 1024  # what a reader of a stream may leave unread before events are dropped and counted
GROUP = "pcipt"
MODE = 0o660

Handler = Callable[[Message], Message]
Wanted = Callable[[Message], bool]
Stream = Callable[[Message], Wanted]
_UCRED = struct.Struct("3i")  # pid, uid, gid: socket(7), SO_PEERCRED


class Server:
    """Listens at `path`; `handlers` answer by method name, `streams` say which events a subscriber wants."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        handlers: Mapping[str, Handler],
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self._loop = loop
        self._path = path
        self._handlers = handlers
        self._streams = streams or {}
        self._peers: dict[int, _Peer] = {}
        self._listener = listen(path)
        self._inode = os.stat(path).st_ino
        loop.watch(self._listener.fileno(), selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # the peer left meanwhile, or descriptors ran out; the next one is another chance
        connection.setblocking(False)
        _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        by_uid = Counter(peer.uid for peer in self._peers.values())
        others = len(self._peers) - by_uid[0]  # however many they are, root finds a place
        if by_uid[uid] >= CONNECTIONS_PER_UID or (uid != 0 and others >= CONNECTIONS):
            with contextlib.suppress(OSError):
                connection.send(error("Busy", {"reason": "too many connections"}))
            connection.close()
            return
        self._peers[connection.fileno()] = _Peer(connection, uid, self)

    def publish(self, event: Message) -> None:
        """Give an event to every subscriber that wants it."""
        for peer in list(self._peers.values()):
            peer.offer(event)

    @property
    def subscribers(self) -> int:
        return sum(peer.subscribed for peer in self._peers.values())

    def answer(self, frame: bytes, uid: int) -> tuple[bytes, Wanted | None]:
        """Answer one frame of a peer with this uid.

        Shape:  the answer, and for a subscription which events are wanted from now on.
        """
        try:
            message = decode_frame(frame)
        except FrameError as cause:
            return error("InvalidFrame", {"reason": str(cause)}), None
        method = str(message.get("method", ""))
        prefix, _, name = method.rpartition(".")
        if prefix != INTERFACE or name not in {*self._handlers, *self._streams}:
            return error("MethodNotFound", {"method": method[:200]}), None
        parameters = message.get("parameters") or {}
        if not isinstance(parameters, dict):
            return error("InvalidParameter", {"reason": "parameters is no object"}), None
        if METHODS[name] and uid != 0:
            return error("PermissionDenied", {"method": method}), None
        if name in self._streams and message.get("more") is not True:
            return error("ExpectedMore", {"method": method}), None
        return self._call(name, parameters)

    def _call(self, name: str, parameters: Message) -> tuple[bytes, Wanted | None]:
        try:
            if name in self._streams:
                return reply({"version": 1, "kind": "start"}, continues=True), self._streams[name](parameters)
            return reply(self._handlers[name](parameters)), None
        except NoSuchDeviceError as cause:
            return error("NoSuchDevice", {"sbdf": cause.address}), None
        except PciptError as cause:
            return error("Failed", {"reason": str(cause)}), None

    def forget(self, peer: "_Peer") -> None:
        self._peers.pop(peer.fileno, None)

    @property
    def loop(self) -> Loop:
        return self._loop

    def close(self) -> None:
        for peer in list(self._peers.values()):
            peer.close()
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


class _Peer:
    """One connection: what came in so far, what must still go out."""

    def __init__(self, connection: socket.socket, uid: int, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._input = bytearray()
        self._output = bytearray()
        self._finished = False
        self._wanted: Wanted | None = None
        self._dropped = 0
        self.uid = uid
        self.fileno = connection.fileno()
        self._deadline = f"peer {self.fileno}"
        server.loop.watch(self.fileno, selectors.EVENT_READ, self._ready)
        server.loop.after(self._deadline, PATIENCE, self.close)

    @property
    def subscribed(self) -> bool:
        return self._wanted is not None

    def offer(self, event: Message) -> None:
        """Queue an event if this peer subscribed to it; one that does not read loses events, and is told."""
        if self._wanted is None or not self._wanted(event):
            return
        if len(self._output) > STREAM_LIMIT:
            self._dropped += 1
            return
        if self._dropped:
            lost = {"version": 1, "when": event["when"], "kind": "lost", "count": self._dropped}
            self._output += reply(lost, continues=True)
            self._dropped = 0
        self._output += reply(event, continues=True)
        self._ready(0)

    def _ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._receive()
            if self._output:
                del self._output[: self._connection.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._finished and not self._output:
            self.close()
            return
        wanted = selectors.EVENT_READ if not self._finished else 0
        self._server.loop.watch(
            self.fileno, wanted | (selectors.EVENT_WRITE if self._output else 0), self._ready
        )

    def _receive(self) -> None:
        data = self._connection.recv(65536)
        if not data:
            self._finished = True
            return
        self._input += data
        *frames, self._input = self._input.split(b"\0")
        for frame in frames[:REQUESTS]:
            self._answer(bytes(frame))
        if len(frames) > REQUESTS:
            self._output += error("Busy", {"reason": f"more than {REQUESTS} requests at once"})
            self._finished = True
        if len(self._input) > REQUEST_LIMIT:
            self._output += error("InvalidFrame", {"reason": f"longer than {REQUEST_LIMIT} bytes"})
            self._finished = True

    def _answer(self, frame: bytes) -> None:
        answer, wanted = self._server.answer(frame, self.uid)
        self._output += answer
        if wanted is not None:
            self._wanted = wanted
        if self._wanted is None:
            self._server.loop.after(self._deadline, PATIENCE, self.close)
        else:
            self._server.loop.cancel(self._deadline)  # a subscriber may be silent for ever
        if len(self._output) > OUTPUT_LIMIT:
            raise ConnectionAbortedError("it asks and does not read")

    def close(self) -> None:
        self._server.loop.cancel(self._deadline)
        self._server.loop.forget(self.fileno)
        self._server.forget(self)
        self._connection.close()


def listen(path: str) -> socket.socket:
    """Open the socket for root and group pcipt; a leftover of a killed daemon is replaced.

    Raises: InputError where something else is in the way or somebody is listening there.
    """
    refuse_taken(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o777 & ~MODE)
    try:
        listener.bind(path)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
        listener.listen(128)
    except OSError as cause:
        listener.close()
        raise InputError(path, cause.strerror or str(cause)) from cause
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def refuse_taken(path: str) -> None:
    """Raise InputError where something else than the leftover of a killed daemon is in the way."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InputError(path, "something that is no socket is in the way")
        if _somebody_listens(path):
            raise InputError(path, "somebody is listening there already")


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
