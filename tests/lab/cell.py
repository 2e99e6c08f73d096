"""The cells of the lab: a release of Debian with its Xen, a kind of dom0, a vendor of the emulated IOMMU."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

Suite = Literal["bookworm", "trixie"]
Mode = Literal["pv", "pvh"]
Vendor = Literal["intel", "amd"]
SUITES: tuple[Suite, ...] = get_args(Suite)
MODES: tuple[Mode, ...] = get_args(Mode)
VENDORS: tuple[Vendor, ...] = get_args(Vendor)
#: The release of Xen that each Debian has.
XEN: dict[Suite, str] = {"bookworm": "4.17", "trixie": "4.20"}


@dataclass(frozen=True)
class Platform:
    """What all machines of one run of pytest share: the release and the IOMMU's vendor."""

    suite: Suite = "bookworm"
    vendor: Vendor = "intel"

    @property
    def xen(self) -> str:
        """The release of Xen, two numbers."""
        return XEN[self.suite]

    def __str__(self) -> str:
        return f"{self.suite}-{self.vendor}"


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix; `name` is what CELLS of `make lab-matrix` takes."""

    platform: Platform
    mode: Mode

    @property
    def has_regions(self) -> bool:
        """True if the machine has reserved regions that Xen takes: QEMU's AMD IOMMU has none."""
        return self.platform.vendor == "intel"

    @property
    def name(self) -> str:
        """The cell's name: suite, kind of dom0, vendor."""
        return f"{self.platform.suite}-{self.mode}-{self.platform.vendor}"


@dataclass(frozen=True)
class Extra:
    """How a run's machine differs from its cell's: more words for Xen, other hardware (`hardware.OTHER`).

    With `linux`, words for Linux, Linux boots without Xen.
    """

    xen: str = ""
    hardware: str = ""
    linux: str = ""


PLAIN = Extra()
#: The platform of `make lab`'s first lanes.
FIRST = Platform()
CELLS = tuple(
    Cell(Platform(suite, vendor), mode) for suite, vendor, mode in itertools.product(SUITES, VENDORS, MODES)
)
