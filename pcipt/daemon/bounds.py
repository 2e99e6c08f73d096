"""How much memory the daemon may need at most: one row for each thing that grows.

The bounds of each row are constants of the module that keeps them. A test holds the sum below the unit's
MemoryMax, and measures what one piece of each row takes.
"""

from collections.abc import Sequence

import attrs

from pcipt.daemon import document, limits
from pcipt.daemon.control import connection, protocol, server
from pcipt.daemon.telling import history

KIB = 1024
MONITORS = server.CONNECTIONS + server.SUBSCRIPTIONS_PER_UID  # of all users, and of root
CONNECTIONS = server.CONNECTIONS + server.CONNECTIONS_PER_UID


@attrs.frozen
class Bound:
    """One thing that grows: at most `number` pieces, each of at most `size` bytes of memory."""

    what: str
    number: int
    size: int

    @property
    def total(self) -> int:
        """Return the bytes of all pieces."""
        return self.number * self.size


def bounds(functions: int) -> Sequence[Bound]:
    """Return the rows for a host with this number of functions."""
    return (
        Bound("Python and pcipt's modules", 1, 28 * KIB * KIB),
        Bound("machine, shadow and Xen's view, of a function", functions, 4 * KIB),
        Bound("ledger in memory, of a function", functions, 3 * KIB),
        Bound("ledger while it is read or written, of a function", functions, 4 * KIB),
        Bound("steps while they are read", 1, 4 * document.LINE_LIMIT),
        Bound("history, an event", history.ALL, 2 * KIB),
        Bound("answers that are not read", 1, server.WAITING_LIMIT),
        Bound("the answer to Mappings that is kept, of a function", functions, KIB),
        Bound("events that a monitor has not read", MONITORS, connection.STREAM_LIMIT),
        Bound("requests", CONNECTIONS, 2 * protocol.REQUEST_LIMIT),
        Bound("limits of messages", limits.KEYS, KIB),
    )
