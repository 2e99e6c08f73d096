"""One connection to the control socket: bytes received, bytes to send, deadlines. No call here ever waits.

The server says when a peer's next request is answered. Until the peer has read that answer, nothing more is
read from it. So a peer that sends without reading cannot delay other peers or the engine, and needs little
memory.
"""

import selectors
import socket
from collections.abc import Callable
from typing import Protocol

import attrs

from pcipt.daemon.control.protocol import REQUEST_LIMIT, Message, error, reply
from pcipt.daemon.loop import Loop

PATIENCE = 10.0  # seconds that a peer has to send its request or to read its answer
STREAM_LIMIT = 256 * 1024  # bytes that a subscriber may leave unread before events are dropped
_CHUNK = 65536

Wanted = Callable[[Message], bool]


@attrs.frozen
class Subscription:
    """What a subscriber gets: `first` at once, then every published event for which `wanted` returns True.

    `over` is called once, when the subscription ends.
    """

    wanted: Wanted
    first: Message = attrs.field(factory=lambda: {"version": 1, "kind": "start"})
    over: Callable[[], None] = lambda: None


class Later:
    """An answer that does not exist yet.

    The handler calls `give` with the answer. The connection gets the answer through `when_given`.
    """

    def __init__(self) -> None:
        self._message: Message | None = None
        self._then: Callable[[Message], None] | None = None

    def give(self, message: Message) -> None:
        """Set the answer. If `when_given` was called before, its function is called with the answer now.

        Call it once.
        """
        self._message = message
        if self._then is not None:
            self._then(message)

    def when_given(self, then: Callable[[Message], None]) -> None:
        """Call `then` with the answer: now if `give` was called already, else as soon as `give` is called.

        Only one function can wait: a second call replaces the first.
        """
        self._then = then
        if self._message is not None:
            then(self._message)


class Answers(Protocol):
    """The methods that a connection calls on its server."""

    def answer(self, frame: bytes, uid: int) -> tuple[bytes | Later, Subscription | None]:
        """Answer one request of a peer with this uid; see `Server.answer`."""

    def has_room_for(self, peer: "Peer") -> bool:
        """Return True if the bytes that this peer has not read may stay queued; see `Server.has_room_for`."""

    def wait_for_turn(self, peer: "Peer") -> None:
        """Call `take_turn` of this peer, whose next request has arrived, when it is its turn."""

    def forget(self, peer: "Peer") -> None:
        """Remove a closed connection from the server's list."""


class Peer:
    """One connection, from accept to close. `server` answers its requests.

    A peer without a subscription is closed if it does not send a request, or does not read its answer, within
    PATIENCE seconds. While the answer to its request does not exist yet (`Later`), there is no limit.
    `own` is True for a connection that this process has made: the watchdog's.
    """

    def __init__(
        self, connection: socket.socket, uid: int, loop: Loop, server: Answers, *, own: bool = False
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._server = server
        self._input = bytearray()
        self._output = bytearray()
        self._ended = False  # the peer has closed its sending side
        self._closing = False  # close after the queued bytes are sent
        self._gone = False
        self._waits = False  # its answer is given later
        self._subscription: Subscription | None = None
        self._dropped = 0
        self._dropped_at = ""
        self.uid = uid
        self.own = own
        self.fileno = connection.fileno()
        self._deadline = f"peer {self.fileno}"
        loop.watch(self.fileno, selectors.EVENT_READ, self._ready)
        loop.after(self._deadline, PATIENCE, self.close)

    @property
    def subscribed(self) -> bool:
        """Return True if the peer has a subscription."""
        return self._subscription is not None

    @property
    def waiting(self) -> int:
        """Return the number of bytes that are queued for this peer and not sent yet."""
        return len(self._output)

    @property
    def _may_ask(self) -> bool:
        """Return True if the next request may be read.

        This is so if the answer to the last request exists and no bytes are queued for the peer. For a
        subscriber up to STREAM_LIMIT bytes may be queued.
        """
        return not self._waits and len(self._output) <= (STREAM_LIMIT if self.subscribed else 0)

    def offer(self, event: Message) -> None:
        """Queue an event if this peer has a subscription that wants it; else do nothing.

        If the peer has more than STREAM_LIMIT bytes unread, the event is dropped and counted. The number of
        dropped events is sent, as an event of kind "lost", before the next event or as soon as the peer has
        read everything.
        """
        if self._subscription is None or not self._subscription.wanted(event):
            return
        if len(self._output) > STREAM_LIMIT:
            self._dropped += 1
            self._dropped_at = event["when"]
            return
        self._tell_dropped()
        self._output += reply(event, continues=True)
        self._ready(0)

    def _tell_dropped(self) -> None:
        """Queue an event of kind "lost" with the number of dropped events, if there are any."""
        if self._dropped:
            lost = {"version": 1, "when": self._dropped_at, "kind": "lost", "count": self._dropped}
            self._output += reply(lost, continues=True)
            self._dropped = 0

    def close(self) -> None:
        """End the subscription, if any, close the connection, and remove it from the server's list."""
        self._gone = True
        self._subscribe(None)
        self._loop.cancel(self._deadline)
        self._loop.forget(self.fileno)
        self._server.forget(self)
        self._connection.close()

    def _ready(self, events: int) -> None:
        """Receive and send without waiting, then choose what to wait for.

        `events` are the ready events of the loop. Any error of the connection closes it.
        """
        try:
            if events & selectors.EVENT_READ:
                self._receive()
            if self._output and not self._gone:
                del self._output[: self._connection.send(self._output)]
                if not self._output:
                    self._tell_dropped()  # now, because the next event may be far off
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._go_on()

    def _receive(self) -> None:
        """Receive bytes of the peer. A request that is longer than REQUEST_LIMIT bytes is refused."""
        data = self._connection.recv(_CHUNK)
        self._ended = not data
        self._input += data
        if self._may_ask and b"\0" not in self._input and len(self._input) > REQUEST_LIMIT:
            self._refuse("InvalidFrame", f"longer than {REQUEST_LIMIT} bytes")

    def take_turn(self) -> None:
        """Answer the next request, if it has arrived completely and the peer has read its last answer.

        The server calls this after `wait_for_turn`.
        """
        frame, nul, rest = self._input.partition(b"\0")
        if nul and self._may_ask and not self._closing:
            self._input = rest
            self._answer(bytes(frame))
        self._ready(0)

    def _answer(self, frame: bytes) -> None:
        """Queue the answer to one request. The request may start a subscription.

        If the answer does not exist yet (`Later`), it is queued when it is given. A request that is longer
        than REQUEST_LIMIT bytes is refused.
        """
        if len(frame) > REQUEST_LIMIT:
            self._refuse("InvalidFrame", f"longer than {REQUEST_LIMIT} bytes")
            return
        answer, subscription = self._server.answer(frame, self.uid)
        if isinstance(answer, Later):
            self._waits = True
            self._loop.cancel(self._deadline)  # however long it takes
            answer.when_given(self._answered)
            return
        self._send(answer, subscription)

    def _answered(self, message: Message) -> None:
        """Send the answer that was given later. Do nothing if the connection was closed meanwhile."""
        if self._gone:
            return
        self._waits = False
        self._send(reply(message), None)
        self._ready(0)

    def _send(self, answer: bytes, subscription: Subscription | None) -> None:
        """Queue an answer and begin `subscription` if it is not None.

        If the server has no room for the answer, `subscription` ends at once, the error Busy is sent instead
        of the answer, and the connection is closed.
        """
        self._output += answer
        if not self._server.has_room_for(self):
            if subscription is not None:
                subscription.over()
            del self._output[len(self._output) - len(answer) :]
            self._refuse("Busy", "too many answers are waiting to be read")
        elif subscription is not None or self.subscribed:
            self._subscribe(subscription or self._subscription)
            self._loop.cancel(self._deadline)  # a subscriber need not send anything
        else:
            self._loop.after(self._deadline, PATIENCE, self.close)

    def _subscribe(self, subscription: Subscription | None) -> None:
        """Make `subscription` the present one (None: the peer then has none).

        `over` of the former subscription is called, if there was one and it is another one.
        """
        before, self._subscription = self._subscription, subscription
        if before is not None and before is not subscription:
            before.over()

    def _refuse(self, name: str, why: str) -> None:
        """Queue an error as the last answer.

        The connection is closed when the error is sent, or after PATIENCE seconds.
        """
        self._output += error(name, {"reason": why})
        self._input.clear()
        self._closing = True
        self._loop.after(self._deadline, PATIENCE, self.close)

    def _go_on(self) -> None:
        """Choose what to wait for: the next request, room to send, its turn, or a later answer.

        The connection is closed instead if nothing is left to send and it is to be closed, or if nothing is
        left to send, the peer has ended its requests and no answer is due.
        """
        if self._gone:
            return
        more = b"\0" in self._input and not self._closing
        if not self._output and (self._closing or (self._ended and not more and not self._waits)):
            self.close()
            return
        if more and self._may_ask:
            self._loop.cancel(self._deadline)  # it is for the server to act
            self._server.wait_for_turn(self)
        reads = self._may_ask and not (more or self._ended or self._closing)
        events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if self._output else 0)
        if not events:
            self._loop.forget(self.fileno)  # until the next turn
            return
        try:
            self._loop.watch(self.fileno, events, self._ready)
        except OSError:  # the kernel is short of memory: this client has to ask again
            self.close()
