"""Whose request is answered next: that of the service itself, then one of each user in turn.

So a user with many connections delays another user by one answer, whatever the first one asks for.
"""

from pcipt.daemon.control.connection import Peer

_OURS = -1  # in place of a uid: connections that this process makes, the watchdog's


class Turns:
    """The peers that wait for an answer, each once."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[Peer, None]] = {}  # by uid: the uid whose turn is next first

    def __bool__(self) -> bool:
        """Return True if a peer waits."""
        return bool(self._waiting)

    def add(self, peer: Peer) -> None:
        """Add a peer. A peer that waits already keeps its place."""
        self._waiting.setdefault(_share(peer), {})[peer] = None

    def take(self) -> Peer:
        """Remove and return the peer whose turn it is: one of the service's own, else one of the next uid.

        That uid is the last one after this. Raises: StopIteration if no peer waits.
        """
        share = _OURS if _OURS in self._waiting else next(iter(self._waiting))
        peers = self._waiting.pop(share)
        peer = next(iter(peers))
        del peers[peer]
        if peers:
            self._waiting[share] = peers
        return peer

    def forget(self, peer: Peer) -> None:
        """Remove a peer. Do nothing if it does not wait."""
        peers = self._waiting.get(_share(peer), {})
        peers.pop(peer, None)
        if not peers:
            self._waiting.pop(_share(peer), None)


def _share(peer: Peer) -> int:
    """Return whose turns the peer uses: its uid's, or those of the service."""
    return _OURS if peer.own else peer.uid
