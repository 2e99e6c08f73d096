"""Parse the lines of trace_pipe that the kernel prints for pcipt's kprobes. This module does no I/O.

    setpci-394 [000] d..1. 45.838809: conf1: (pci_conf1_write+0x0/0xf0) seg=0 bus=0 devfn=251 reg=4 len=2
    val=3 comm="setpci"

A command name can contain spaces, colons, dashes and brackets, so the text after it decides where the name
ends. Recordings of plain probes have no `comm`. Numbers are decimal or 0x…; this depends on the field and the
kernel. A line shows the value that Linux writes; only reading the register shows if the hardware took it.
Source: linux kernel/trace/trace_output.c (trace_print_context), trace.c (LOST), trace_probe.c (arguments).
"""

import re
from collections.abc import Container

from pcipt.errors import MalformedError
from pcipt.pci import Sbdf, sbdf_from_devfn
from pcipt.pci.write import ConfigWrite, Lost, Writer

FIELDS = ("seg", "bus", "devfn", "reg", "len", "val")
LIMITS = {"seg": 0xFFFF_FFFF, "bus": 0xFF, "devfn": 0xFF, "reg": 0xFFF, "len": 4, "val": (1 << 64) - 1}

_NUMBER = r"(?:0x[0-9a-fA-F]{1,16}|\d{1,20})"
_ARGUMENTS = " ".join(f"{name}=(?P<{name}>{_NUMBER})" for name in FIELDS)
_LINE = re.compile(
    r"\s*(?P<comm>.*)-(?P<pid>\d{1,20})"
    r"\s+(?:\(\s*[-\d]+\)\s+)?"  # the thread group, only with the option record-tgid
    r"\[\d+\]\s+(?:\S{4,8}\s+)?"  # the CPU; flags such as irqs-off, only with the option irq-info
    r"(?P<when>\d{1,20}\.\d{1,20}): (?:pcipt:)?(?:conf1|mmcfg): \([^()]*\) "
    + _ARGUMENTS
    + r"(?: comm=\"(?P<name>.*)\")?",
    re.DOTALL,
)
_LOST = re.compile(r"CPU:\s*\d+ \[LOST(?: (?P<count>\d{1,20}))? EVENTS\]")


def parse_line(
    line: str, own: Container[int] = (), number: int | None = None, source: str = "trace"
) -> ConfigWrite | Lost | None:
    """Return the write or the loss that one line of trace_pipe describes. Return None for an empty line and
    for a comment that begins with `#`.

    `own` are the thread ids whose writes are marked as this process's own. `number` becomes the write's
    number. `source` is the name of the input in an error. A value with more bits than the access has is cut
    to the bytes of the access.
    Raises: MalformedError if the line is not a write, a loss, a comment or empty, or if a field has an
            impossible value. The offset of the error is `number` (0 if None).
    """
    text = line.rstrip("\n")
    found = _LINE.fullmatch(text.rstrip())
    if found is None:
        return _parse_other_line(text.strip(), number, source)
    values = {name: int(found[name], 0 if found[name].startswith("0x") else 10) for name in FIELDS}
    for name, limit in LIMITS.items():
        if values[name] > limit:
            raise MalformedError(source, number or 0, f"{name} {values[name]:#x} is above {limit:#x}", "line")
    offset, size = values["reg"], values["len"]
    if size not in {1, 2, 4} or offset + size > LIMITS["reg"] + 1:
        raise MalformedError(source, number or 0, f"no access has {size} bytes at {offset:#x}", "line")
    pid = int(found["pid"])
    return ConfigWrite(
        sbdf=_sbdf(values),
        offset=offset,
        size=size,
        value=values["val"] & (1 << 8 * size) - 1,
        when=float(found["when"]),
        who=Writer(comm=found["comm"] if found["name"] is None else found["name"], pid=pid),
        number=number,
        own=pid in own,
    )


def _sbdf(values: dict[str, int]) -> Sbdf:
    """Return the address from the values of the fields seg, bus and devfn."""
    return sbdf_from_devfn(values["seg"], values["bus"], values["devfn"])


def _parse_other_line(text: str, number: int | None, source: str) -> Lost | None:
    """Return the loss that a line describes, or None for an empty line or a comment.

    The caller has already found that the line is not a write.
    Raises: MalformedError if the line is not a loss, a comment or empty.
    """
    if not text or text.startswith("#"):
        return None
    if (lost := _LOST.fullmatch(text)) is not None:
        return Lost(int(lost["count"]) if lost["count"] else None)
    raise MalformedError(source, number or 0, "no line of our probes", "line")
