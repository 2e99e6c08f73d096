"""A server whose loop runs in a thread, so that a test can be the peer."""

import contextlib
import json
import socket
import threading

from pcipt.daemon.control.connection import Later, Subscription
from pcipt.daemon.control.listener import listen
from pcipt.daemon.control.protocol import request
from pcipt.daemon.control.server import Server
from pcipt.daemon.loop import Loop
from pcipt.errors import NoSuchDeviceError


def no_such(_parameters):
    raise NoSuchDeviceError("0000:00:00.0")


class Served:
    """`events` is how many events History publishes before it answers, `size` that of its answer.

    Metrics is answered later: all that wait get their answer when somebody asks for Rmrr.
    """

    def __init__(self, path):
        self.path = path
        self.events = self.size = 0
        self.over = []  # subscriptions that have ended
        self.loop = Loop()
        self.waiting = []  # answers that are given later
        handlers = {
            "Status": self.count, "History": self.echo, "Resync": no_such, "Metrics": self.postpone,
            "Rmrr": self.give,
        }  # fmt: skip
        streams = {"Monitor": self.subscribe}
        self.asked = 0
        self.server = Server(self.loop, listen(path), handlers, streams, path=path)
        self._wake, self._waker = socket.socketpair()
        self.loop.watch(self._wake.fileno(), 1, lambda _: self.loop.stop())
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def subscribe(self, parameters):
        first = int(parameters.get("slot", 0))
        return Subscription(lambda event: event["n"] >= first, over=lambda: self.over.append(first))

    def count(self, _parameters):
        self.asked += 1
        return {"asked": self.asked}

    def echo(self, parameters):
        for number in range(self.events):
            self.server.publish({"when": "now", "n": number, "pad": "x" * 1000})
        return {"echo": parameters, "pad": "x" * self.size}

    def postpone(self, _parameters):
        self.waiting.append(Later())
        return self.waiting[-1]

    def give(self, _parameters):
        waiting, self.waiting = self.waiting, []
        for number, later in enumerate(waiting):
            later.give({"given": number, "pad": "x" * self.size})
        return {"gave": len(waiting)}

    def until_waiting(self, number=1):
        """Wait until so many requests for a later answer have arrived.

        A question is refused if it is one connection too many: the server has not yet seen the end of the one
        before.
        """
        while len(self.waiting) < number:
            with contextlib.suppress(ConnectionError, json.JSONDecodeError):
                self.ask(request("Status"))

    def connect(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(20)
        peer.connect(self.path)
        return peer

    def ask(self, data):
        with self.connect() as peer:
            peer.sendall(data)
            return json.loads(everything(peer, one=True))

    def close(self):
        self._waker.send(b"x")
        self._thread.join(10)
        self.server.close()
        self._wake.close()
        self._waker.close()
        self.loop.close()


def everything(peer, *, one=False):
    """Read until the other end closes, or one frame."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := peer.recv(65536):
            data += part
            if one and b"\0" in data:
                break
    return data.partition(b"\0")[0] if one else data


def frames(data):
    return [json.loads(frame) for frame in data.split(b"\0") if frame]


class Reader:
    """Reads a stream frame by frame; what came too early waits."""

    def __init__(self, peer):
        self._peer = peer
        self._data = b""

    def frame(self):
        while b"\0" not in self._data:
            part = self._peer.recv(65536)
            assert part, "the stream has ended"
            self._data += part
        frame, _, self._data = self._data.partition(b"\0")
        return json.loads(frame)

    def until(self, enough):
        found = [self.frame()]
        while not enough(found[-1]["parameters"]):
            found.append(self.frame())
        return found
