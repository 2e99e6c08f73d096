"""Read the text of `lspci -x`, `-xxx` or `-xxxx`. Only its lines with an address or with bytes are used.

Other lines (names, sizes, drivers) describe the machine where lspci ran and are ignored, so sizes, drivers
and parents stay unknown. If a line of bytes does not begin at the offset where the line before it ended, the
function keeps only the bytes before this line and gets a finding.

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
    """Read the functions of a dump from a file, as `parse_dump` does. The path `-` is standard input.

    Raises: InputError if the file cannot be read, is longer than 64 MiB, or has no function.
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
    """Return the functions in the text of a dump, in the order of their address lines. Raises nothing.

    The list is empty if no line begins with an address. If an address occurs twice, only the bytes after its
    first line are kept, and the function gets a finding. A function without bytes has the config None.
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
    """The bytes and findings of one function in a dump."""

    def __init__(self, sbdf: Sbdf) -> None:
        self._sbdf = sbdf
        self._config = bytearray()
        self._findings: list[Finding] = []
        self._broken = False

    def add(self, number: int, offset: int, text: str) -> None:
        """Append a line of bytes.

        `number` is the number of the line in the dump, `offset` the offset that the line names, `text` the
        rest of the line. A line is wrong if it is malformed, does not continue at the end of the bytes so
        far, or goes beyond 4096 bytes. The first wrong line adds a finding. All lines after a wrong line are
        ignored.
        """
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
        """Add a finding, unless there is one with the same code."""
        if all(finding.code != code for finding in self._findings):
            self._findings.append(Finding(code, why))

    def raw(self) -> RawFunction:
        """Return the function with its findings and the bytes read so far (None if there are none)."""
        return RawFunction(
            self._sbdf, bytes(self._config[:MAX_CONFIG]) or None, findings=tuple(self._findings)
        )

    def _stop(self, number: int, what: str) -> None:
        """Ignore all further lines of this function, and add a finding about the line `number`.

        `what` says what is wrong with this line.
        """
        self._broken = True
        self.find(
            "dump-malformed", f"line {number} of the dump {what}: config space from there on is unknown"
        )
