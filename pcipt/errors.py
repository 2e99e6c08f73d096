"""Define the exceptions of pcipt. Each exception holds its facts as attributes and builds its message from
them.

This module imports no other module of pcipt. So the command line can choose an exit code without loading any
of them.
"""


class PciptError(Exception):
    """Base class of every exception that pcipt defines. Code raises only the subclasses."""


class AddressError(PciptError):
    """Raised when a text is not a valid address of a PCI function.

    `field` names the wrong part: "segment", "bus", "device", "function", "path", or "address" for the whole
    text. `why` says what is wrong. `nearest` lists addresses that exist and that the user may have meant; the
    message suggests them.
    """

    def __init__(self, text: str, field: str, why: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(text, field, why, nearest)
        self.text = text
        self.field = field
        self.why = why
        self.nearest = nearest

    def __str__(self) -> str:
        hint = f" (did you mean {' or '.join(self.nearest)}?)" if self.nearest else ""
        return f"malformed address {_shown(self.text)}: {self.why}{hint}"


class MalformedError(PciptError):
    """Raised when bytes or text from outside pcipt do not have the required form.

    `source` names the file or table, `why` says what is wrong. `offset` is the position in `source`: a byte
    offset from 0 or an address if `unit` is "byte", a line number from 1 if it is "line". The message shows a
    byte offset in hexadecimal, a line number in decimal.
    """

    def __init__(self, source: str, offset: int, why: str, unit: str = "byte") -> None:
        super().__init__(source, offset, why, unit)
        self.source = source
        self.offset = offset
        self.why = why
        self.unit = unit

    def __str__(self) -> str:
        where = f"line {self.offset}" if self.unit == "line" else f"at {self.offset:#x}"
        return f"{_shown(self.source)}: {where}: {self.why}"


class StateError(PciptError):
    """Raised when an operation is not possible in the present state of a connection, a ledger entry or a
    function, for example after `close`.

    The message is the only argument.
    """


class InputError(PciptError):
    """Raised when a file, a directory, a setting or a command cannot be used.

    `path` names the thing that cannot be used, `why` says why.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{_shown(self.path)}: {self.why}"


class NoSuchDeviceError(PciptError):
    """Raised when no function has the address `address`. `nearest` lists similar addresses that exist."""

    def __init__(self, address: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(address, nearest)
        self.address = address
        self.nearest = nearest

    def __str__(self) -> str:
        hint = f" (did you mean {' or '.join(self.nearest)}?)" if self.nearest else ""
        return f"no function {_shown(self.address)} on this machine{hint}"


class HypervisorError(PciptError):
    """Raised when a call to Xen failed.

    `op` names the call, `errno` is the positive Linux error number. `subject` names the function or range
    that the call was about; it is empty if the call was about none.
    """

    def __init__(self, op: str, errno: int, subject: str = "") -> None:
        super().__init__(op, errno, subject)
        self.op = op
        self.errno = errno
        self.subject = subject

    def __str__(self) -> str:
        import errno as names
        import os

        name = names.errorcode.get(self.errno, str(self.errno))
        about = f" of {self.subject}" if self.subject else ""
        return f"Xen: {self.op}{about}: {name} ({os.strerror(self.errno)})"


class UnsupportedError(PciptError):
    """Raised when this machine cannot do something, for example because Xen or a library is missing.

    `feature` names the thing that cannot be done, `why` says why.
    """

    def __init__(self, feature: str, why: str) -> None:
        super().__init__(feature, why)
        self.feature = feature
        self.why = why

    def __str__(self) -> str:
        return f"{self.feature}: {self.why}"


class NotRunningError(PciptError):
    """Raised when the daemon does not answer on its control socket. `path` is the path of the socket, `why`
    says what happened at the socket.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return (
            f"the pcipt daemon is not running ({_shown(self.path)}: {self.why}); "
            "`systemctl status pcipt` shows why, `systemctl start pcipt` starts it"
        )


class NotPermittedError(PciptError):
    """Raised when the caller lacks a permission.

    `what` names the operation that was refused. `needed` tells the user which permission or which user the
    operation needs.
    """

    def __init__(self, what: str, needed: str) -> None:
        super().__init__(what, needed)
        self.what = what
        self.needed = needed

    def __str__(self) -> str:
        return f"{self.what}: not permitted; {self.needed}"


def printable(text: str) -> str:
    """Return `text` with every unprintable character replaced by its backslash escape, so that a terminal can
    show the text safely.

    Control characters and newlines are unprintable; a space is printable. A backslash that is already in
    `text` is not escaped.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shown(text: str, limit: int = 120) -> str:
    """Return `text` made printable. A text of more than `limit` characters is first cut to `limit - 1`
    characters and "…"; escapes can make the result longer again.
    """
    return printable(text if len(text) <= limit else text[: limit - 1] + "…")
