"""PCI-X: limits and errors of a device or bridge on a conventional bus.

Source: PCI-X Protocol Addendum 2.0a §7.2 (device), §8.6.2 (bridge).
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import (
    Field,
    Register,
    Structure,
    View,
    flag,
    flags,
    one_of,
    power_of_two,
)
from pcipt.pci.config import HeaderType

PCI_X = 0x07
_OUTSTANDING = one_of(dict(enumerate((1, 2, 3, 4, 8, 12, 16, 32))))
_CLOCKS = one_of({0: "conv", 1: "66MHz", 2: "100MHz", 3: "133MHz"})
_COMPLEXITY = one_of({0: "simple", 1: "bridge"})


def _requester(raw: int) -> str:
    """Return the address with which the function sends requests, as it captured it."""
    return f"{raw >> 8:02x}:{raw >> 3 & 0x1F:02x}.{raw & 7}"


_STATUS = (
    Field("requester", "Dev", 0, 16, _requester),
    *flags(
        (16, "64bit", "bus_64bit"),
        (17, "133MHz", "bus_133mhz"),
        (18, "SCD", "split_completion_discarded"),
        (19, "USC", "unexpected_split_completion"),
    ),
)
_OVERRUNS = ((20, "SCO", "split_completion_overrun"), (21, "SRD", "split_request_delayed"))


def _split(key: str, title: str, offset: int) -> Register:
    return Register(
        key,
        title,
        offset,
        4,
        (Field("capacity", "Capacity", 0, 16), Field("commitment_limit", "CommitmentLimit", 16, 16)),
    )


def _pci_x(view: View) -> Iterator[Register]:
    if view.header is HeaderType.BRIDGE:
        yield Register(
            "secondary_status",
            "Secondary Status",
            2,
            2,
            (
                *flags(
                    (0, "64bit", "bus_64bit"),
                    (1, "133MHz", "bus_133mhz"),
                    (2, "SCD", "split_completion_discarded"),
                    (3, "USC", "unexpected_split_completion"),
                    (4, "SCO", "split_completion_overrun"),
                    (5, "SRD", "split_request_delayed"),
                ),
                Field("clock", "Freq", 6, 3, _CLOCKS),
            ),
        )
        yield Register("status", "Status", 4, 4, (*_STATUS, *flags(*_OVERRUNS)))
        yield _split("upstream", "Upstream", 8)
        yield _split("downstream", "Downstream", 12)
        return
    yield Register(
        "command",
        "Command",
        2,
        2,
        (
            *flags((0, "DPERE", "parity_recovery"), (1, "ERO", "relaxed_ordering")),
            Field("read_count", "RBC", 2, 2, power_of_two(512)),
            Field("outstanding", "OST", 4, 3, _OUTSTANDING),
        ),
    )
    yield Register(
        "status",
        "Status",
        4,
        4,
        (
            *_STATUS,
            Field("complexity", "DC", 20, 1, _COMPLEXITY),
            Field("max_read_count", "DMMRBC", 21, 2, power_of_two(512)),
            Field("max_outstanding", "DMOST", 23, 3, _OUTSTANDING),
            Field("max_cumulative_read", "DMCRS", 26, 3, power_of_two(8)),
            flag(29, "RSCEM", "split_error_message"),
            *flags((30, "266MHz", "bus_266mhz"), (31, "533MHz", "bus_533mhz")),
        ),
    )


STRUCTURES = (Structure(PCI_X, False, _pci_x),)
