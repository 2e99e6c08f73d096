"""Parse recordings with one JSON object on each line: port or ECAM accesses, or decoded writes.

    {"n": 1, "vcpu": 0, "dir": "w", "port": "0xcf8", "size": 4, "value": "0x80000000"}
    {"n": 2, "vcpu": 0, "dir": "w", "ecam": "0xe0000004", "size": 2, "value": 6}
    {"n": 13, "sbdf": "0000:00:00.0", "offset": "0x90", "size": 4, "value": "0x33333330"}

A number is a JSON number or a string of hexadecimal digits after 0x. A write may also have `when` (seconds)
and `own` (true if pcipt made it). Other keys are ignored.
"""

import json
import re
from typing import Any

from pcipt.errors import AddressError, MalformedError
from pcipt.pci import parse_sbdf
from pcipt.pci.write import ConfigWrite, Writer
from pcipt.watch.ports import ACCESS, ECAM, NO_VCPU, WRITE

_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_U64 = (1 << 64) - 1


def parse_access(line: bytes, number: int, source: str) -> bytes:
    """Return the binary record (`ACCESS`) for one line of *.ports.jsonl. `PortDecoder` takes such records.

    `number` is the line number; it is the record's `n` if the line has no key `n`. If the line has no valid
    key `vcpu`, the record has NO_VCPU. A value with more bits than `size` has is cut to `size` bytes.
    Raises: MalformedError with `number` as offset, if the line is not a JSON object, if `dir`, `size`,
            `value` or the address (`port` or `ecam`) is missing, or if one of these or `n` is wrong.
    """
    record = _object(line, number, source)
    ecam = "ecam" in record
    address = _integer(record, "ecam" if ecam else "port", number, source, _U64 if ecam else 0xFFFF)
    direction = record.get("dir")
    if direction not in ("r", "w"):
        raise MalformedError(source, number, "dir is neither r nor w", "line")
    size = _size(record, number, source)
    if size is None:
        raise MalformedError(source, number, "size is missing", "line")
    value = _integer(record, "value", number, source, _U64) & (1 << 8 * size) - 1
    n = _integer(record, "n", number, source, _U64) if "n" in record else number
    flags = (WRITE if direction == "w" else 0) | (ECAM if ecam else 0)
    return ACCESS.pack(n, address, value, _vcpu(record), size, flags)


def parse_write(line: bytes, number: int, source: str) -> ConfigWrite:
    """Return the write that one line of *.writes.jsonl describes. Its size is None (unknown) if `size` is
    null or missing.

    `number` is the line number; it is the write's number if the line has no key `n`. The writer is None if
    the line has no valid key `vcpu`. A value with more bits than the size has is cut. If the size is unknown,
    the value is cut to 4 bytes.
    Raises: MalformedError with `number` as offset, if the line is not a JSON object, if `sbdf`, `offset` or
            `value` is missing, or if one of these, `size`, `n` or `when` is wrong.
    """
    record = _object(line, number, source)
    address = record.get("sbdf")
    if not isinstance(address, str):
        raise MalformedError(source, number, "sbdf is missing", "line")
    try:
        sbdf = parse_sbdf(address)
    except AddressError as error:
        raise MalformedError(source, number, error.why, "line") from error
    size = _size(record, number, source)
    offset = _integer(record, "offset", number, source, 0x1000 - (size or 1))
    value = _integer(record, "value", number, source, _U64)
    value &= (1 << 8 * (size or 4)) - 1
    n = _integer(record, "n", number, source, _U64) if "n" in record else number
    vcpu = _vcpu(record)
    who = None if vcpu == NO_VCPU else Writer(vcpu=vcpu)
    return ConfigWrite(
        sbdf, offset, size, value, _when(record, number, source), who, n, record.get("own") is True
    )


def _object(line: bytes, number: int, source: str) -> dict[str, Any]:
    """Return the JSON object in one line.

    Raises: MalformedError if the line is not JSON or not an object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedError(source, number, "no JSON object", "line") from error
    if not isinstance(record, dict):
        raise MalformedError(source, number, "no JSON object", "line")
    return record


def _size(record: dict[str, Any], number: int, source: str) -> int | None:
    """Return the key `size` (1, 2 or 4 bytes), or None if it is missing or null.

    Raises: MalformedError if it is anything else.
    """
    size = record.get("size")
    if size is None:
        return None
    if isinstance(size, bool) or size not in (1, 2, 4):
        raise MalformedError(source, number, "size is none of 1, 2, 4", "line")
    return int(size)


def _vcpu(record: dict[str, Any]) -> int:
    """Return the key `vcpu`, or NO_VCPU if it is missing or not a valid vCPU number. Raises nothing."""
    vcpu = record.get("vcpu")
    if not isinstance(vcpu, int) or isinstance(vcpu, bool) or not 0 <= vcpu < NO_VCPU:
        return NO_VCPU
    return vcpu


def _when(record: dict[str, Any], number: int, source: str) -> float | None:
    """Return the key `when` in seconds, or None if it is missing or null.

    Raises: MalformedError if it is not a number, is negative, or is not below 1e12.
    """
    when = record.get("when")
    if when is None:
        return None
    if isinstance(when, bool) or not isinstance(when, int | float) or not 0 <= when < 1e12:
        raise MalformedError(source, number, "when is no number of seconds", "line")
    return float(when)


def _integer(record: dict[str, Any], key: str, number: int, source: str, limit: int) -> int:
    """Return the number under `key`: a JSON number or a text of hexadecimal digits after 0x.

    Raises: MalformedError if it is missing, is not such a number, or is not in the range from 0 to `limit`.
    """
    value = record.get(key)
    if isinstance(value, str) and _HEX.fullmatch(value):
        value = int(value, 16)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(
            source, number, f"{key} is {'missing' if value is None else 'no number'}", "line"
        )
    if not 0 <= value <= limit:
        raise MalformedError(source, number, f"{key} is out of range", "line")
    return value
