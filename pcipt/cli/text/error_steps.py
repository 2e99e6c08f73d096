"""What a user can do about an error of the command line: each error ends in a command, or says that nothing
can be done and why.

An error that has its own step keeps it. Every other error gets the step of its class, of the operating
system's error behind it, and of the command that was run. `main` loads this module only after an error.
"""

import errno
import os
import shlex
from collections.abc import Sequence

from pcipt import errors
from pcipt.pci.notation.next_steps import NOTHING

MACHINE = ("--root", "--dump")  # the options that name another machine than this one
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_OF_CLASS = (
    (errors.AddressError, "`{machine}` shows the addresses"),
    (errors.NoSuchDeviceError, "`{machine}` shows the addresses"),
    (errors.HypervisorError, "`xl dmesg` shows what Xen says about it"),
    (errors.UnsupportedError, "`pcipt host` shows what this host can do"),
    (errors.StateError, "`pcipt status` shows the state now"),
    (errors.PciptError, _HELP := "`{help}` shows how to use this command, with examples"),
    (OSError, _HELP),
)
_KEPT = "`pcipt policy list` shows what is kept"
_OF_POLICY = (
    (errors.AddressError, _KEPT),
    (errors.NoSuchDeviceError, _KEPT),
    (errors.StateError, _KEPT),
    *_OF_CLASS,
)
_OF_ADD = ((errors.StateError, _KEPT), *_OF_CLASS)  # it names functions of the machine
_INTERNAL = "please send this line and the archive of `pcipt report` to the makers of pcipt"
_CORRECT = {
    "daemon": "correct the file, then `systemctl restart pcipt`",
    "policy": "correct the file, then `pcipt policy check`",
}
_TOOLS = ("xl ", "modprobe ")  # an InputError of a program that pcipt called has the program in its path


def error_text(error: Exception, arguments: Sequence[str]) -> str:
    """Return the text of an error and what can be done about it.

    `arguments` are those of the command line, without "pcipt".
    """
    said = _said(error)
    if has_step(getattr(error, "needed", None) or getattr(error, "why", None) or said):
        return said
    step = _step(error, arguments)
    return f"{said} {step[0].upper()}{step[1:]}" if said.endswith("?") else f"{said}; {step}"


def has_step(text: str) -> bool:
    """Return True if `text` has a command in backticks, or says that nothing can be done."""
    return text.count("`") > 1 or any(text.startswith(word) or f"; {word}" in text for word in NOTHING)


def _said(error: Exception) -> str:
    """Return the text of an error; for an OSError the file and the reason."""
    if isinstance(error, errors.PciptError):
        return str(error)
    if isinstance(error, OSError):
        from pcipt.host.tree import reason

        about = f"{errors.printable(str(error.filename))}: " if error.filename is not None else ""
        return f"{about}{reason(error)}"
    return f"internal error: {type(error).__name__}: {errors.printable(str(error))}"


def _step(error: Exception, arguments: Sequence[str]) -> str:
    """Return what a user can do about an error whose text does not say it."""
    if isinstance(error, errors.NotPermittedError):
        return _as_root(arguments)
    cause = error if isinstance(error, OSError) else error.__cause__
    path = str(getattr(error, "path", None) or getattr(error, "filename", None) or "")
    if isinstance(cause, OSError) and (step := _of_system(cause, path, arguments)):
        return step
    if str(getattr(cause, "path", path)).startswith(_TOOLS):
        return "`xl dmesg` and `dmesg` show more"
    if path.endswith(".toml"):
        return _CORRECT["daemon" if arguments[:1] == ["daemon"] else "policy"]
    command = _command(arguments)
    machine, part = _typed(["list", *_machine(arguments)]), _typed(["help", *command])
    steps = _OF_CLASS if command[0] != "policy" else _OF_ADD if command[1:] == ["add"] else _OF_POLICY
    found = next((step for kind, step in steps if isinstance(error, kind)), _INTERNAL)
    return found.format(machine=machine, help=part)


def _of_system(cause: OSError, path: str, arguments: Sequence[str]) -> str:
    """Return what a user can do about an error of the operating system about `path`; "" for other numbers.

    The path is empty if the error is about what the command prints.
    """
    if cause.errno in _FORBIDDEN:
        return _as_root(arguments)
    if cause.errno not in _FULL | _ABSENT:
        return ""
    where = errors.printable(shlex.quote(_existing(path))) if path else ""
    if cause.errno in _FULL:
        return f"`df {where or '-h'}` shows the space that is left"
    return f"`ls {where or '.'}` shows what is there"


def _existing(path: str) -> str:
    """Return the nearest directory at or above `path` that exists."""
    directory = os.path.dirname(path)
    while directory not in ("", "/") and not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory or "."


def _as_root(arguments: Sequence[str]) -> str:
    """Return the step for something that only root may do."""
    if os.geteuid() != 0:
        return f"run it as root: `sudo {_typed(arguments)}`"
    return (
        "nothing can be done here: even root may not do this; run the command in dom0, outside of a container"
    )


def _machine(arguments: Sequence[str]) -> list[str]:
    """Return the options of a command line that name the machine, as the user wrote them."""
    for at, word in enumerate(arguments):
        if word in MACHINE and at + 1 < len(arguments):
            return [word, arguments[at + 1]]
        if word.startswith(tuple(f"{option}=" for option in MACHINE)):
            return [word]
    return []


def _command(arguments: Sequence[str]) -> list[str]:
    """Return the command of a command line and its part, if it is a command with parts."""
    name, part = [*arguments[:2], "", ""][:2]
    return [name, part] if name in ("policy", "pvh") and part.isalpha() else [name]


def _typed(arguments: Sequence[str]) -> str:
    """Return a command line of pcipt as a user types it in a shell, without unprintable characters."""
    return errors.printable(shlex.join(["pcipt", *arguments]))
