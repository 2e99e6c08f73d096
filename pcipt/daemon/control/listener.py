"""The listening control socket, opened here or passed by systemd, and the credentials of its peers.

Source: socket(7), SO_PEERCRED; sd_listen_fds(3).
"""

import contextlib
import grp
import os
import socket
import stat
import struct
from collections.abc import MutableMapping

from pcipt.errors import InputError

GROUP = "pcipt"
MODE = 0o660
BACKLOG = 128
FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_UCRED = struct.Struct("iII")  # pid, uid, gid
_SO_PEERGROUPS = 59  # not in the socket module; Linux 4.13
_MOST = 1024  # bytes, Python's limit for an option: 256 groups


def listen(path: str) -> socket.socket:
    """Open the control socket at `path`; return it, listening and non-blocking.

    Root and members of group pcipt may connect; only root if the group does not exist. The socket file of a
    killed daemon is replaced.

    Raises: InputError if the path is another kind of file, if somebody listens there, or if the socket cannot
            be bound; OSError if the path cannot be examined, or if the old socket file cannot be removed.
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
        listener.listen(BACKLOG)
    except OSError as cause:
        listener.close()
        raise InputError(path, cause.strerror or str(cause)) from cause
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def passed_listener(
    environment: MutableMapping[str, str] | None = None, first: int = FIRST_PASSED
) -> socket.socket | None:
    """Return the listening socket that systemd has passed to this process; None if it has passed none.

    `first` is the number of the first passed descriptor. The variables LISTEN_* are removed from
    `environment` (None: os.environ).

    Raises: InputError if systemd has passed several sockets, or one that is not a listening stream socket of
            AF_UNIX.
    """
    variables = os.environ if environment is None else environment
    given = {name: variables.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()) or given["LISTEN_FDS"] in {"", "0"}:
        return None  # none was passed, or it was passed to our parent process
    if given["LISTEN_FDS"] != "1":
        raise InputError("$LISTEN_FDS", f"is {given['LISTEN_FDS']!r}; expected one socket")
    try:
        listener = socket.socket(fileno=first)
        os.set_inheritable(first, False)
        fits = listener.family == socket.AF_UNIX and listener.type == socket.SOCK_STREAM
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as cause:
        raise InputError("$LISTEN_FDS", f"the descriptor passed is no socket ({cause.strerror})") from cause
    if not fits or not listening:
        listener.close()
        raise InputError("$LISTEN_FDS", "the socket passed is no listening stream socket of AF_UNIX")
    listener.setblocking(False)
    return listener


def credentials(connection: socket.socket) -> tuple[int, int, frozenset[int]]:
    """Return pid, uid and group ids of a connected peer, as they were when it connected.

    If the peer has more than 256 groups, or the kernel does not tell them, only its primary group is
    returned.

    Raises: OSError if the kernel does not tell pid and uid.
    """
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(data)
    groups = {gid}
    with contextlib.suppress(OSError):
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST)
        groups.update(value for (value,) in struct.iter_unpack("I", more))
    return pid, uid, frozenset(groups)


def group_of(listener: socket.socket) -> int | None:
    """Return the id of the group whose members may connect: the group of the socket's file.

    Return None if the file cannot be examined.
    """
    with contextlib.suppress(OSError):
        return os.stat(listener.getsockname()).st_gid
    return None


def refuse_taken(path: str) -> None:
    """Check that a control socket may be made at `path`. A path that does not exist is allowed.

    A socket file on which nobody listens is allowed too: a killed daemon has left it.

    Raises: InputError if somebody listens at `path`, or if it is a file other than a socket; OSError if the
            path cannot be examined.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InputError(path, "this file is no socket; `ls -l` shows the file; rename the file")
        if _somebody_listens(path):
            raise InputError(
                path, "a program, probably another pcipt daemon, uses this socket; `pcipt status` asks it"
            )


def _somebody_listens(path: str) -> bool:
    """Return True if a connection to the socket succeeds within a second; False after any error."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
