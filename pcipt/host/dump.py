"""Read the text of `lspci -x`, `-xxx` or `-xxxx`: its address lines and its lines of bytes, nothing else.

Whatever lspci (or a person) wrote in between was true elsewhere and is no data. Sizes, drivers and nesting
are not in a dump and stay unknown. Bytes that do not continue where the last line ended are a finding; the
function keeps what came before.

Source: lspci(8), options -x and -F; pciutils lib/dump.c.
"""

import os
import re

from pcipt.errors import InputError
from pcipt.host.tree import reason
from pcipt.pci import Finding, RawFunction, Sbdf

MAX_BYTES = 64 << 20
MAX_CONFIG = 4096

_ADDRESS = re.compile(
    r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])(?=\s|$)", re.ASCII | re.IGNORECASE
)
_OFFSET = re.compile(r"([0-9a-f]{2,3}):(?=\s|$)", re.ASCII | re.IGNORECASE)
_BYTES = re.compile(r"(?: [0-9a-f]{2}){1,16}\s*", re.ASCII | re.IGNORECASE)


def read_dump(path: str) -> list[RawFunction]:
    """Read a dump from a file, `-` is standard input.

    Raises: InputError where it cannot be read, is too long, or holds no function.
    """
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as source:
            data = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(path, reason(error)) from error
    if len(data) > MAX_BYTES:
        raise InputError(path, f"is longer than {MAX_BYTES >> 20} MiB; it is no lspci dump")
    found = parse_dump(data)
    if not found:
        what = "is empty" if not data else "holds no function: no line begins with an address such as 00:1f.2"
        raise InputError(os.fspath(path), f"{what}; expected the output of lspci -x, -xxx or -xxxx")
    return found


def parse_dump(data: bytes) -> list[RawFunction]:
    """Decode the text of a dump; lines are split at newlines and may have any length.

    Shape:  in the order of the dump; of an address that comes twice the first is kept.
    """
    blocks: dict[Sbdf, _Block] = {}
    current: _Block | None = None
    for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
        if matched := _ADDRESS.match(line):
            segment, bus, device, function = (int(part or "0", 16) for part in matched.groups())
            sbdf = Sbdf(segment, bus, device, function)
            current = _Block(sbdf)
            first = blocks.setdefault(sbdf, current)
            if first is not current:
                first.find(
                    "duplicate-address", f"line {number} names it again; only its first bytes are taken"
                )
        elif current is not None and (matched := _OFFSET.match(line)):
            current.add(number, int(matched[1], 16), line[matched.end() :])
    return [block.raw() for block in blocks.values()]


class _Block:
    """What a dump holds of one function."""

    def __init__(self, sbdf: Sbdf) -> None:
        self._sbdf = sbdf
        self._config = bytearray()
        self._findings: list[Finding] = []
        self._broken = False

    def add(self, number: int, offset: int, text: str) -> None:
        """Append a line of bytes; after the first that does not fit, the rest stays unknown."""
        if self._broken:
            return
        if not _BYTES.fullmatch(text):
            self._stop(number, "is no row of hexadecimal bytes")
        elif offset != len(self._config):
            self._stop(number, f"begins at {offset:#x}, expected {len(self._config):#x}")
        else:
            self._config += bytes.fromhex(text)
            if len(self._config) > MAX_CONFIG:
                self._stop(number, "goes beyond 4096 bytes")

    def find(self, code: str, why: str) -> None:
        if all(finding.code != code for finding in self._findings):
            self._findings.append(Finding(code, why))

    def raw(self) -> RawFunction:
        return RawFunction(
            self._sbdf, bytes(self._config[:MAX_CONFIG]) or None, findings=tuple(self._findings)
        )

    def _stop(self, number: int, what: str) -> None:
        self._broken = True
        self.find(
            "dump-malformed", f"line {number} of the dump {what}: config space from there on is unknown"
        )
