"""A recorded machine that changes by recorded steps: what `pcipt replay` and `pcipt daemon --replay` play.

    DIR/sys, DIR/proc         the machine at the beginning, as `pcipt record` writes it
    DIR/steps/NAME/sys, …     the machine after a step
    DIR/sequence.jsonl        one step a line, see `Step`; the rest of the layout: daemon/replay/recording.py
    DIR/xen.json              Xen at the beginning, see `XenStart`

Nothing is ever written below DIR: a register written here is remembered until the next step, not stored.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import attrs

from pcipt.errors import AddressError, InputError, MalformedError, NoSuchDeviceError
from pcipt.host.iomem import MemoryReading
from pcipt.host.live import LinuxHost
from pcipt.host.regular_file import read_regular
from pcipt.host.sysfs import read_addresses
from pcipt.pci import RawFunction, Sbdf, parse_sbdf
from pcipt.pci.config import Register

_LIMIT = 1 << 20


@attrs.frozen
class Step:
    """One change: {"n": 12, "tree": NAME, "about": TEXT, "changed": [SBDF, …], "forget": [SBDF, …]}.

    `tree` is the machine after it (None: as before), `changed` the functions that hot-plug messages name,
    `forget` those that somebody else made Xen forget. It comes after the writes up to number `number`; None
    is after all of them.
    """

    tree: str | None
    about: str
    changed: tuple[Sbdf, ...] = ()
    forget: tuple[Sbdf, ...] = ()
    number: int | None = None


@attrs.frozen
class XenStart:
    """What Xen was when the recording began: {"version": "4.17.7", "dom0": "pv", "known": [SBDF, …],
    "announces": false}; None where the recording does not tell.

    `announces`: dom0's kernel told Xen of what came and went; else the recording shows what pcipt does alone.
    """

    version: str | None
    dom0: str | None
    known: tuple[Sbdf, ...] | None
    announces: bool = False


class RecordedHost:
    """The machine of a recording, at the step it has been moved to."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._linux = LinuxHost(directory)
        self._written: dict[Sbdf, dict[int, bytes]] = {}
        self.boot_id = self._linux.boot_id or "recorded"

    def move_to(self, step: Step) -> None:
        """Make the machine what it was after this step.

        Raises: InputError where the recording does not hold that step.
        """
        if step.tree is None:
            return
        tree = os.path.join(self._directory, "steps", step.tree)
        if not os.path.isdir(tree):
            raise InputError(tree, "the recording has no such step")
        self._linux = LinuxHost(tree)
        self._written = {}

    def read_machine(self) -> list[RawFunction]:
        return [self._with_written(raw) for raw in self._linux.read_machine()]

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        raw = self._linux.read_function(sbdf)
        return self._with_written(raw) if raw is not None else None

    def acpi_tables(self) -> list[bytes]:
        return self._linux.acpi_tables()

    def memory(self) -> MemoryReading:
        return self._linux.memory()

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Read the register as written last, else as recorded.

        Raises: NoSuchDeviceError where the recorded machine does not have the function now.
        """
        raw = self.read_function(sbdf)
        if raw is None or raw.config is None or len(raw.config) < register.offset + register.size:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes(raw.config[register.offset :][: register.size], "little")

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        self._written.setdefault(sbdf, {})[register.offset] = value.to_bytes(register.size, "little")

    def _with_written(self, raw: RawFunction) -> RawFunction:
        written = self._written.get(raw.sbdf)
        if written is None or raw.config is None:
            return raw
        data = bytearray(raw.config)
        for offset, value in written.items():
            data[offset : offset + len(value)] = value
        return attrs.evolve(raw, config=bytes(data[: len(raw.config)]))


def read_steps(directory: str) -> Iterator[Step]:
    """Read sequence.jsonl; a recording without one has no steps.

    Raises: MalformedError with the offset of the line that is not a step.
    """
    path = os.path.join(directory, "sequence.jsonl")
    data = _read(path)
    offset = 0
    for line in data.splitlines(keepends=True):
        if line.strip():
            yield _step(path, offset, line)
        offset += len(line)


def read_xen_start(directory: str) -> XenStart:
    """Read xen.json; without one Xen knows every function of the machine.

    Raises: MalformedError where the file is not what it should be.
    """
    path = os.path.join(directory, "xen.json")
    data = _read(path)
    if not data:
        return XenStart(None, None, tuple(read_addresses(directory)))
    value = _object(path, 0, data)
    known = value.get("known")
    return XenStart(
        version=_word(path, value, "version"),
        dom0=_word(path, value, "dom0"),
        known=None if known is None else _addresses(path, 0, known),
        announces=value.get("announces") is True,
    )


def _step(path: str, offset: int, line: bytes) -> Step:
    value = _object(path, offset, line)
    tree, number = value.get("tree"), value.get("n")
    named = isinstance(tree, str) and tree and "/" not in tree and not tree.startswith(".")
    if not named and not (tree is None and ("n" in value or "forget" in value)):
        raise MalformedError(path, offset, 'expected "tree": the name of a directory below steps/')
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        raise MalformedError(path, offset, 'expected "n": the number of the last write before the step')
    changed, forget = (_addresses(path, offset, value.get(key, [])) for key in ("changed", "forget"))
    return Step(tree, str(value.get("about", "")), changed, forget, number)


def _object(path: str, offset: int, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedError(path, offset, "not JSON") from error
    if not isinstance(value, dict):
        raise MalformedError(path, offset, "not a JSON object")
    return value


def _addresses(path: str, offset: int, values: object) -> tuple[Sbdf, ...]:
    if not isinstance(values, list):
        raise MalformedError(path, offset, "expected a list of addresses")
    try:
        return tuple(parse_sbdf(str(value)) for value in values)
    except AddressError as error:
        raise MalformedError(path, offset, str(error)) from error


def _word(path: str, value: dict[str, Any], key: str) -> str | None:
    word = value.get(key)
    if word is not None and not isinstance(word, str):
        raise MalformedError(path, 0, f'expected a string as "{key}"')
    return word


def _read(path: str) -> bytes:
    """Read a file of the recording whole; a FIFO must not hold the reader up, nothing is cut silently.

    Shape:  empty where there is none.
    """
    try:
        return read_regular(path, _LIMIT)
    except FileNotFoundError:
        return b""
