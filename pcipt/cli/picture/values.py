"""The values of a picture of the machine: blocks of rows, each row a function or a line of text."""

import enum
from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.firmware.passthrough.reasons import Verdict
from pcipt.pci import Sbdf


class Holder(enum.Enum):
    """Who holds a function, in the words of the legend."""

    HOST = "bridge or part of the host"
    DOM0 = "dom0 drives it"
    IDLE = "dom0 has it, no driver is known"
    ASIDE = "set aside for guests"
    GUEST = "a guest has it"
    NOBODY = "Xen names no owner"


@attrs.frozen
class FunctionRow:
    """One function. Only `rails` says where it is in the tree (`Forest.walk`).

    `about` is its name, for a bridge with the buses below it. `held` says who holds it in at most two words:
    the driver, "guest 3". `number` is that of its set; None if it can go alone. `regions` are the numbers of
    its reserved regions. `verdict` is None for a part of the host. `more` is the text that a viewer shows
    where the pointer is.
    """

    sbdf: Sbdf
    rails: Sequence[bool]
    about: str
    holder: Holder
    held: str
    number: int | None
    regions: Sequence[int]
    verdict: Verdict | None
    more: str


@attrs.frozen
class Block:
    """A heading with the rows below it: functions of one root bus, or lines of text."""

    heading: str
    rows: Sequence[FunctionRow | str]


@attrs.frozen
class Picture:
    """What is drawn: a title, lines about the host, blocks."""

    title: str
    host: Sequence[str]
    blocks: Sequence[Block]
