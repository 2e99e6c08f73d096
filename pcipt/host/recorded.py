"""Play a recorded machine that changes step by step, for `pcipt replay` and `pcipt daemon --replay`.

    DIR/sys, DIR/proc         the machine at the beginning, as `pcipt record` writes it
    DIR/steps/NAME/sys, …     the machine after a step
    DIR/sequence.jsonl        one step on each line, see `Step`
    DIR/xen.json              Xen at the beginning, see `XenStart`
For the other files of DIR see daemon/replay/recording.py. Nothing is ever written below DIR: a register that
is written here is kept in memory until the next step.
"""

import json
import os
import re
from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.errors import AddressError, InputError, MalformedError, NoSuchDeviceError, UnsupportedError
from pcipt.hints import Any
from pcipt.host.iomem import MemoryReading
from pcipt.host.live import LinuxHost
from pcipt.host.machine_files import read_listed
from pcipt.host.regular_file import read_regular
from pcipt.host.sysfs import read_addresses
from pcipt.host.tree import reason
from pcipt.pci import RawFunction, Sbdf, parse_sbdf
from pcipt.pci.config import Register

_LIMIT = 1 << 20
_DOM0 = {"PV": "pv", "PVH": "pvh"}
_EXTRA = re.compile(r"[.-]\S*")  # of a version of Xen


@attrs.frozen
class Step:
    """One change: {"n": 12, "tree": NAME, "about": TEXT, "changed": [SBDF, …], "forget": [SBDF, …]}.

    `tree` is the directory below steps/ with the machine after the step; None means that the machine does not
    change. `about` describes the step for people. `changed` are the functions for which hot-plug messages
    arrive. `forget` are the functions that somebody other than pcipt removes from Xen. `number` ("n") is the
    number of the last write before the step; None places the step after all writes.
    """

    tree: str | None
    about: str
    changed: tuple[Sbdf, ...] = ()
    forget: tuple[Sbdf, ...] = ()
    number: int | None = None


@attrs.frozen
class XenStart:
    """Xen at the beginning: {"version": "4.17.7", "dom0": "pv", "known": [SBDF, …], "announces": false}.

    `known` are the functions that Xen knows. `version` and `dom0` are those of sys/hypervisor where xen.json
    does not tell them. Each of the three is None if the recording does not tell it. `announces` is True if
    dom0's kernel tells Xen about functions that are added and removed. If it is False, only pcipt tells Xen
    about them.
    """

    version: str | None
    dom0: str | None
    known: tuple[Sbdf, ...] | None
    announces: bool = False


class RecordedHost:
    """The machine of the recording in `directory`, after the step that `move_to` chose last.

    Before the first call of `move_to`, it is the machine at the beginning. `boot_id` is the recorded id of
    the boot, or "recorded" if there is none.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._linux = LinuxHost(directory)
        self._written: dict[Sbdf, dict[int, bytes]] = {}
        self.boot_id = self._linux.boot_id or "recorded"

    def move_to(self, step: Step) -> None:
        """Change the machine to its state after `step`, and forget the registers that were written.

        Do nothing if `step.tree` is None.
        Raises: InputError if the recording does not have the directory of this step; the machine then does
                not change.
        """
        if step.tree is None:
            return
        tree = os.path.join(self._directory, "steps", step.tree)
        if not os.path.isdir(tree):
            raise InputError(tree, "the recording has no such step")
        self._linux = LinuxHost(tree)
        self._written = {}

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions, sorted, without reading any file of them.

        Raises: InputError if the recording has no sys/bus/pci/devices.
        """
        return self._linux.addresses()

    def read_machine(self) -> list[RawFunction]:
        """Return all functions as recorded, with the registers that were written.

        The order is that of their directory paths.
        Raises: InputError if the recording has no sys/bus/pci/devices.
        """
        return [self._with_written(raw) for raw in self._linux.read_machine()]

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        """Return one function as recorded, with the registers that were written.

        Return None if the function is not in the recorded machine now.
        Raises: InputError if the recording has no sys/bus/pci/devices.
        """
        raw = self._linux.read_function(sbdf)
        return self._with_written(raw) if raw is not None else None

    @property
    def release(self) -> str:
        """Return the release of the recorded kernel; empty if it was not recorded."""
        return self._linux.release

    def acpi_tables(self) -> list[bytes]:
        """Return the recorded ACPI tables, as `LinuxHost.acpi_tables` does.

        Tables that were not recorded are left out.
        """
        return self._linux.acpi_tables()

    def memory(self) -> MemoryReading:
        """Return the recorded memory maps. Raises: InputError if there is no usable map."""
        return self._linux.memory()

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Return the value that was written last to a register; if none was written, the recorded value.

        Raises: NoSuchDeviceError if the function is not in the recorded machine now, or if the register was
                not recorded; InputError if the recording has no sys/bus/pci/devices.
        """
        raw = self.read_function(sbdf)
        if raw is None or raw.config is None or len(raw.config) < register.offset + register.size:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes(raw.config[register.offset :][: register.size], "little")

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        """Remember the value of a register until `move_to` is called with a step that has a tree.

        No file is written. It is not checked whether the function exists and whether the register is in
        `WRITABLE`.
        Raises: OverflowError if the value does not fit in the register.
        """
        self._written.setdefault(sbdf, {})[register.offset] = value.to_bytes(register.size, "little")

    def probe(self, sbdf: Sbdf) -> None:
        """Do nothing: a recording has no drivers that could be bound."""

    def guarded_ports(self) -> None:
        """Return None: a recording has no xen-pciback that could be given a port."""

    def is_usb4_port(self, _sbdf: Sbdf) -> bool:
        """Return False: a recording has no links between devices."""
        return False

    def guard_port(self, sbdf: Sbdf, *, on: bool) -> None:
        """Raise UnsupportedError: nothing of a recording changes."""
        raise UnsupportedError("guard-port", f"{sbdf} is in a recording: it stays {'open' if on else 'so'}")

    def quarantine(self, sbdf: Sbdf) -> None:
        """Raise UnsupportedError: nothing of a recording changes."""
        raise UnsupportedError("quarantine", f"{sbdf} is in a recording")

    def read_log(self) -> None:
        """Return None: a recording has no log of the kernel."""

    def _with_written(self, raw: RawFunction) -> RawFunction:
        """Return `raw` with the written registers in its config space.

        Return `raw` itself if none was written or it has no config space. Written bytes behind the end of the
        recorded config space are dropped.
        """
        written = self._written.get(raw.sbdf)
        if written is None or raw.config is None:
            return raw
        data = bytearray(raw.config)
        for offset, value in written.items():
            data[offset : offset + len(value)] = value
        return attrs.evolve(raw, config=bytes(data[: len(raw.config)]))


def read_steps(directory: str) -> Iterator[Step]:
    """Yield the steps in sequence.jsonl, in the order of its lines.

    If the file is missing, there are no steps. Empty lines are skipped. Errors are raised during iteration.
    Raises: MalformedError with the number of a line that is not a valid step; InputError if the file is
            not a regular file, is longer than 1 MiB, or cannot be opened or read.
    """
    path = os.path.join(directory, "sequence.jsonl")
    data = _read(path)
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            yield _step(path, number, line)


def read_xen_start(directory: str) -> XenStart:
    """Read xen.json. If the file is missing or empty, Xen knows every function of the recorded machine. What
    it does not tell of `version` and `dom0`, the recording's sys/hypervisor tells.

    Raises: MalformedError if the content is not valid; InputError if the file is not a regular file, is
            longer than 1 MiB, or cannot be opened or read; InputError if the file is missing or empty and the
            recording has no sys/bus/pci/devices.
    """
    path = os.path.join(directory, "xen.json")
    data = _read(path)
    version, dom0 = _version(directory), _DOM0.get(_text(directory, "sys/hypervisor/guest_type"))
    if not data:
        return XenStart(version, dom0, tuple(read_addresses(directory)))
    value = _object(path, None, data)
    known = value.get("known")
    return XenStart(
        version=_word(path, value, "version") or version,
        dom0=_word(path, value, "dom0") or dom0,
        known=None if known is None else _addresses(path, None, known),
        announces=value.get("announces") is True,
    )


def _version(directory: str) -> str | None:
    """Return the version of the Xen under which the machine was recorded; None if the recording lacks it.

    What a build adds counts ("4.22-unstable" may have no more than 4.21 has), unless it is no such text.
    """
    parts = (_text(directory, f"sys/hypervisor/version/{part}") for part in ("major", "minor", "extra"))
    major, minor, extra = parts
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    return f"{major}.{minor}{extra if _EXTRA.fullmatch(extra) else ''}"


def _text(directory: str, name: str) -> str:
    """Return the text of a file of the machine without its line's end; empty if it cannot be read."""
    return (read_listed(directory, name) or b"").decode("ascii", "replace").strip()


def _step(path: str, number: int, line: bytes) -> Step:
    """Parse line `number` (from 1) of sequence.jsonl, the file `path`.

    "tree" may be missing only if the line has "n" or "forget".
    Raises: MalformedError if the line is not a valid step.
    """
    value = _object(path, number, line)
    tree, write = value.get("tree"), value.get("n")
    named = isinstance(tree, str) and tree and "/" not in tree and not tree.startswith(".")
    if not named and not (tree is None and ("n" in value or "forget" in value)):
        raise _malformed(path, number, 'expected "tree": the name of a directory below steps/')
    if write is not None and (not isinstance(write, int) or isinstance(write, bool) or write < 0):
        why = 'expected the key "n": the number of the last write that comes before this step'
        raise _malformed(path, number, why)
    changed, forget = (_addresses(path, number, value.get(key, [])) for key in ("changed", "forget"))
    return Step(tree, str(value.get("about", "")), changed, forget, write)


def _malformed(path: str, line: int | None, why: str) -> MalformedError:
    """Return the error about a line of the file `path`, or about the whole file if `line` is None."""
    return MalformedError(path, 0, why) if line is None else MalformedError(path, line, why, "line")


def _object(path: str, line: int | None, data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises: MalformedError, which names `path` and `line`, if `data` is not a JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, line, "not JSON") from error
    if not isinstance(value, dict):
        raise _malformed(path, line, "not a JSON object")
    return value


def _addresses(path: str, line: int | None, values: object) -> tuple[Sbdf, ...]:
    """Return the addresses in a JSON list of texts, in its order.

    Raises: MalformedError, which names `path` and `line`, if `values` is not a list of addresses.
    """
    if not isinstance(values, list):
        raise _malformed(path, line, "expected a list of addresses")
    try:
        return tuple(parse_sbdf(str(value)) for value in values)
    except AddressError as error:
        raise _malformed(path, line, str(error)) from error


def _word(path: str, value: dict[str, Any], key: str) -> str | None:
    """Return the text that `value` has for `key`, or None if it is missing or null.

    Raises: MalformedError, which names `path`, if it is not a text.
    """
    word = value.get(key)
    if word is not None and not isinstance(word, str):
        raise _malformed(path, None, f'expected a string as "{key}"')
    return word


def _read(path: str) -> bytes:
    """Return the whole content of a file, or no bytes if the file does not exist.

    Raises: InputError if it is not a regular file (opening a FIFO would block), is longer than 1 MiB, or
            cannot be opened or read.
    """
    try:
        return read_regular(path, _LIMIT)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(path, reason(error)) from error
