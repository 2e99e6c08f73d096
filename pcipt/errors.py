"""The errors of pcipt: attributes first, the text is made from them.

Nothing is imported here, so that the command line can name its exit codes without loading a room.
"""


class PciptError(Exception):
    """What pcipt itself raises; never raised directly."""


class AddressError(PciptError):
    """A text is not the address it should be; `field` names the wrong part, `nearest` what exists."""

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
    """Bytes or text from outside do not have the form they must have."""

    def __init__(self, source: str, offset: int, why: str) -> None:
        super().__init__(source, offset, why)
        self.source = source
        self.offset = offset
        self.why = why

    def __str__(self) -> str:
        return f"{_shown(self.source)}: at {self.offset:#x}: {self.why}"


class StateError(PciptError):
    """An event does not fit the state it meets; the state is unchanged."""


class InputError(PciptError):
    """A file, directory or setting that the user named cannot be used."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{_shown(self.path)}: {self.why}"


class NoSuchDeviceError(PciptError):
    """No function has this address; `nearest` are existing ones that look alike."""

    def __init__(self, address: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(address, nearest)
        self.address = address
        self.nearest = nearest

    def __str__(self) -> str:
        hint = f" (did you mean {' or '.join(self.nearest)}?)" if self.nearest else ""
        return f"no function {_shown(self.address)} on this machine{hint}"


class HypervisorError(PciptError):
    """A call to Xen failed: `op` and the Linux `errno` tell what and how."""

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
    """A feature is missing here: no Xen, no library, a refusal by version."""

    def __init__(self, feature: str, why: str) -> None:
        super().__init__(feature, why)
        self.feature = feature
        self.why = why

    def __str__(self) -> str:
        return f"{self.feature}: {self.why}"


class NotRunningError(PciptError):
    """The daemon does not answer on its control socket."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"the pcipt daemon is not running ({_shown(self.path)}: {self.why})"


class NotPermittedError(PciptError):
    """The caller lacks the right; `needed` says which."""

    def __init__(self, what: str, needed: str) -> None:
        super().__init__(what, needed)
        self.what = what
        self.needed = needed

    def __str__(self) -> str:
        return f"{self.what}: not permitted; {self.needed}"


def printable(text: str) -> str:
    """Escape what must not reach a terminal: control and other unprintable characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shown(text: str, limit: int = 120) -> str:
    return printable(text if len(text) <= limit else text[: limit - 1] + "…")
