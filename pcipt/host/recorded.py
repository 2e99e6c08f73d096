"""A recorded machine that changes by recorded steps: what `pcipt daemon --replay` plays.

    DIR/sys, DIR/proc         the machine at the beginning, as `pcipt record` writes it
    DIR/steps/NAME/sys, …     the machine after a step
    DIR/sequence.jsonl        one step a line: {"tree": NAME, "about": TEXT, "changed": [SBDF, …]}
    DIR/xen.json              {"version": "4.17.7", "dom0": "pv", "known": [SBDF, …]}: Xen at the beginning

Nothing is ever written below DIR: a command register written here is remembered, not stored.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import attrs

from pcipt.errors import AddressError, InputError, MalformedError, NoSuchDeviceError
from pcipt.host.live import LinuxHost
from pcipt.host.sysfs import read_addresses
from pcipt.pci import RawFunction, Sbdf, parse_sbdf

_LIMIT = 1 << 20


@attrs.frozen
class Step:
    """One change of the machine: the tree after it, what happened in words, the functions it is about."""

    tree: str
    about: str
    changed: tuple[Sbdf, ...]


@attrs.frozen
class XenStart:
    """What Xen was when the recording began; None where the recording does not tell."""

    version: str | None
    dom0: str | None
    known: tuple[Sbdf, ...] | None


class RecordedHost:
    """The machine of a recording, at the step it has been moved to."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._linux = LinuxHost(directory)
        self._commands: dict[Sbdf, int] = {}
        self.boot_id = self._linux.boot_id or "recorded"

    def move_to(self, step: Step) -> None:
        """Make the machine what it was after this step.

        Raises: InputError where the recording does not hold that step.
        """
        tree = os.path.join(self._directory, "steps", step.tree)
        if not os.path.isdir(tree):
            raise InputError(tree, "the recording has no such step")
        self._linux = LinuxHost(tree)
        self._commands = {}

    def read_machine(self) -> list[RawFunction]:
        return [self._with_command(raw) for raw in self._linux.read_machine()]

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        raw = self._linux.read_function(sbdf)
        return self._with_command(raw) if raw is not None else None

    def iommu_tables(self) -> list[bytes]:
        return self._linux.iommu_tables()

    def read_command(self, sbdf: Sbdf) -> int:
        """Read the register as written last, else as recorded.

        Raises: NoSuchDeviceError where the recorded machine does not have the function now.
        """
        raw = self.read_function(sbdf)
        if raw is None or raw.config is None or len(raw.config) < 6:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes(raw.config[4:6], "little")

    def write_command(self, sbdf: Sbdf, value: int) -> None:
        self._commands[sbdf] = value

    def _with_command(self, raw: RawFunction) -> RawFunction:
        value = self._commands.get(raw.sbdf)
        if value is None or raw.config is None:
            return raw
        return attrs.evolve(raw, config=raw.config[:4] + value.to_bytes(2, "little") + raw.config[6:])


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
    )


def _step(path: str, offset: int, line: bytes) -> Step:
    value = _object(path, offset, line)
    tree = value.get("tree")
    if not isinstance(tree, str) or not tree or "/" in tree or tree.startswith("."):
        raise MalformedError(path, offset, 'expected "tree": the name of a directory below steps/')
    return Step(tree, str(value.get("about", "")), _addresses(path, offset, value.get("changed", [])))


def _object(path: str, offset: int, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
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
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except FileNotFoundError:
        return b""
