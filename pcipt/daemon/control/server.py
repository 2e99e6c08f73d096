"""The server of the control socket: it checks who may ask, applies limits, and calls a table of handlers.

Credentials of a peer are checked before any byte is read. Root may call everything; members of the socket's
group and the daemon's own user may only read; all others are refused. The unread bytes of all peers together
are limited. One request is answered in each turn of the loop, after everything else.
"""

import contextlib
import os
import selectors
import socket
from collections import Counter
from collections.abc import Callable, Mapping

from pcipt.daemon.control.connection import Later, Peer, Subscription
from pcipt.daemon.control.listener import BACKLOG, GROUP, credentials, group_of
from pcipt.daemon.control.protocol import (
    INTERFACE,
    METHODS,
    SERVICE,
    FrameError,
    Message,
    ParameterError,
    checked_parameters,
    decode_frame,
    error,
    reply,
)
from pcipt.daemon.control.turns import Turns
from pcipt.daemon.control.varlink import SERVICE_METHODS, NoSuchInterfaceError
from pcipt.daemon.loop import Loop
from pcipt.errors import NoSuchDeviceError, PciptError

CONNECTIONS = 64  # of all uids without root
CONNECTIONS_PER_UID = 16
SUBSCRIPTIONS_PER_UID = 12  # the other places are for questions, so that monitors lock nobody out
PAUSE = 1.0  # seconds until a connection that could not be accepted is tried again
_PAUSED = "accept again"
WAITING_LIMIT = 32 * 1024 * 1024  # bytes of answers that all peers together may leave unread

Handler = Callable[[Message], Message | Later]
Stream = Callable[[Message], Subscription]


class Server:
    """The server of the control socket `listener`.

    `handlers` and `streams` map names of METHODS to functions. A handler returns the reply's parameters or a
    `Later`; a stream returns a Subscription. `stamps` maps names of methods without parameters to
    functions: while the result of the function stays the same, the last answer is sent again. `path` is the
    socket file if the daemon has made it, else None; `close` deletes this file.

    Raises: OSError if `path` does not exist.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        handlers: Mapping[str, Handler],
        streams: Mapping[str, Stream] | None = None,
        *,
        stamps: Mapping[str, Callable[[], int]] | None = None,
        path: str | None = None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._handlers = handlers
        self._streams = streams or {}
        self._stamps = stamps or {}
        self._kept: dict[str, tuple[int, bytes]] = {}  # method: stamp and answer
        self._peers: dict[int, Peer] = {}
        self._turns = Turns()
        self._path = path
        self._inode = os.stat(path).st_ino if path is not None else None
        self._group = group_of(listener)
        self._own = os.getpid()
        self._listen()

    def _listen(self) -> None:
        """Accept connections from now on; if that fails, try again after PAUSE seconds."""
        try:
            self._loop.watch(self._listener.fileno(), selectors.EVENT_READ, self._accept)
        except OSError:
            self._loop.after(_PAUSED, PAUSE, self._listen)

    def _accept(self, _events: int) -> None:
        """Accept the connections that are waiting, at most BACKLOG of them.

        If a connection waits and cannot be accepted (no descriptor or no memory is free), none is accepted
        for PAUSE seconds: the socket stays ready, and the loop would never sleep. A connection that fails
        right after it was accepted is closed.
        """
        for _ in range(BACKLOG):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the peer has closed it already
            except OSError:
                self._loop.forget(self._listener.fileno())
                self._loop.after(_PAUSED, PAUSE, self._listen)
                return
            connection.setblocking(False)
            try:
                self._admit(connection)
            except OSError:
                connection.close()

    def _admit(self, connection: socket.socket) -> None:
        """Serve a new connection, or send it an error and close it.

        The error is sent if the peer has no permission, or if there are too many connections. A connection
        that this process makes (the watchdog makes one) is accepted whatever the number of connections is.

        Raises: OSError if the kernel does not tell who the peer is, or the connection cannot be polled.
        """
        pid, uid, groups = credentials(connection)
        if uid not in {0, os.geteuid()} and self._group not in groups:
            _send_away(
                connection,
                error("PermissionDenied", {"needed": f"only root and members of group {GROUP} may ask"}),
            )
        elif pid != self._own and self._is_full(uid):  # the watchdog's request is never refused
            _send_away(connection, error("Busy", {"reason": "too many connections"}))
        else:
            peer = Peer(connection, uid, self._loop, self, own=pid == self._own)
            self._peers[connection.fileno()] = peer

    def _is_full(self, uid: int) -> bool:
        """Return True if one more connection of this uid must be refused.

        Each uid may have CONNECTIONS_PER_UID connections. All uids except root may have CONNECTIONS together.
        """
        by_uid = Counter(peer.uid for peer in self._peers.values())
        others = len(self._peers) - by_uid[0]  # the common limit does not apply to root
        return by_uid[uid] >= CONNECTIONS_PER_UID or (uid != 0 and others >= CONNECTIONS)

    def wait_for_turn(self, peer: Peer) -> None:
        """Let the next request of this peer be answered in its turn."""
        self._turns.add(peer)
        self._loop.last(self._answer_next)

    def _answer_next(self) -> None:
        """Answer one request; the loop calls this after everything else."""
        if not self._turns:
            return  # the peer has left
        peer = self._turns.take()
        if self._turns:
            self._loop.last(self._answer_next)
        peer.take_turn()

    def publish(self, event: Message) -> None:
        """Send an event to every subscriber whose subscription wants it."""
        for peer in list(self._peers.values()):
            peer.offer(event)

    @property
    def subscribers(self) -> int:
        """Return the number of peers with a subscription."""
        return sum(peer.subscribed for peer in self._peers.values())

    def answer(self, frame: bytes, uid: int) -> tuple[bytes | Later, Subscription | None]:
        """Answer one frame of a peer with this uid. A malformed frame or a PciptError becomes an error reply.

        Shape:  the reply as bytes, empty for a "oneway" call, also if it fails, or `Later` if it does not
                exist yet; and the subscription that the call starts, or None. A "oneway" call starts none.
        """
        try:
            message = decode_frame(frame)
        except FrameError as cause:
            return error("InvalidFrame", {"reason": str(cause)}), None
        answer, subscription = self._answer_message(message, uid)
        if message.get("oneway") is not True:
            return answer, subscription
        if subscription is not None:
            subscription.over()  # its events would be replies
        return b"", None

    def _answer_message(self, message: Message, uid: int) -> tuple[bytes | Later, Subscription | None]:
        """Answer one call as if it were not "oneway"; the result is that of `answer`."""
        method = message.get("method")
        interface, _, name = str(method).rpartition(".")
        if interface not in {INTERFACE, SERVICE} or not isinstance(method, str):
            return error("InterfaceNotFound", {"interface": interface[:200]}), None
        if interface == INTERFACE:
            return self._answer_own(name, message, uid)
        return _answer_service(name, message)

    def _answer_own(self, name: str, message: Message, uid: int) -> tuple[bytes | Later, Subscription | None]:
        """Answer a call of the method `name` of org.pcipt; the result is that of `answer`."""
        method = f"{INTERFACE}.{name}"
        if name not in self._handlers and name not in self._streams:
            return error("MethodNotFound", {"method": method[:200]}), None
        if METHODS[name].changes and uid != 0:
            return error("PermissionDenied", {"method": method}), None
        if METHODS[name].stream and message.get("more") is not True:
            return error("ExpectedMore", {"method": method}), None
        try:
            parameters = checked_parameters(name, message.get("parameters"))
            if name not in self._streams:
                return self._reply(name, parameters), None
            if not METHODS[name].changes and self._is_full_of_subscriptions(uid):
                return error("Busy", {"reason": "too many subscriptions"}), None
            subscription = self._streams[name](parameters)
            return reply(subscription.first, continues=True), subscription
        except ParameterError as cause:
            return error("InvalidParameter", {"parameter": cause.parameter, "reason": cause.why}), None
        except NoSuchDeviceError as cause:
            return error("NoSuchDevice", {"sbdf": cause.address, "nearest": list(cause.nearest)}), None
        except PciptError as cause:
            return error("Failed", {"reason": str(cause)}), None

    def _reply(self, name: str, parameters: Message) -> bytes | Later:
        """Return the reply of a handler; the last one if nothing has changed since. Raises: its errors."""
        stamp = self._stamps[name]() if name in self._stamps else None
        kept = self._kept.get(name)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        answer = self._handlers[name](parameters)
        if isinstance(answer, Later):
            return answer
        told = reply(answer)
        if stamp is not None:
            self._kept[name] = stamp, told
        return told

    def _is_full_of_subscriptions(self, uid: int) -> bool:
        """Return True if the peers of this uid have as many subscriptions as they may have."""
        return (
            sum(peer.subscribed for peer in self._peers.values() if peer.uid == uid) >= SUBSCRIPTIONS_PER_UID
        )

    def has_room_for(self, peer: Peer) -> bool:
        """Return True if the bytes that `peer` has not read may stay queued.

        This is so while the unread bytes of all peers together are at most WAITING_LIMIT. Above that limit
        True is returned if another peer has more unread bytes than `peer`, else False.
        """
        waiting = [other.waiting for other in self._peers.values()]
        return sum(waiting) <= WAITING_LIMIT or peer.waiting < max(waiting)

    def forget(self, peer: Peer) -> None:
        """Remove a closed connection from the list. Do nothing if it is not in the list."""
        self._peers.pop(peer.fileno, None)
        self._turns.forget(peer)

    def close(self) -> None:
        """Close all connections and the listening socket; delete the socket file if the daemon made it.

        A file that has replaced the socket file is not deleted.
        """
        for peer in list(self._peers.values()):
            peer.close()
        self._loop.cancel(_PAUSED)
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._inode:
                    os.unlink(self._path)


def _answer_service(name: str, message: Message) -> tuple[bytes, None]:
    """Answer a call of the method `name` of org.varlink.service, the interface that every Varlink service
    has.

    An error becomes an error reply.
    """
    if name not in SERVICE_METHODS:
        return error("MethodNotFound", {"method": f"{SERVICE}.{name}"[:200]}), None
    try:
        return reply(SERVICE_METHODS[name](message.get("parameters"))), None
    except ParameterError as cause:
        return error("InvalidParameter", {"parameter": cause.parameter, "reason": cause.why}), None
    except NoSuchInterfaceError as cause:
        return error("InterfaceNotFound", {"interface": str(cause)[:200]}), None


def _send_away(connection: socket.socket, answer: bytes) -> None:
    """Send an error to a new connection and close it. If sending would have to wait, only close it."""
    with contextlib.suppress(OSError):
        connection.send(answer)
    connection.close()
