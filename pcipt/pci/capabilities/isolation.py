"""Access Control Services and Alternative Routing-ID: what separates functions from each other.

The bits of ACS are in one table (`AcsBits`), which the decoder of `pcipt show` and the judge of isolation
share.
Source: PCI Express Base 6.0 §7.7.11 (ACS), §6.12.1; §7.8.8 (ARI).
"""

import enum

import attrs

from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, flags, one_of
from pcipt.pci.config import ConfigSpace

ACS, ARI = 0x000D, 0x000E


class AcsBits(enum.IntFlag):
    """The bits of the ACS Capability and ACS Control registers. Both registers have the same layout.

    The two bits of a memory target access field are one number: 0 direct, 1 blocked, 2 redirected upstream.
    """

    SOURCE_VALIDATION = 1 << 0
    TRANSLATION_BLOCKING = 1 << 1
    REQUEST_REDIRECT = 1 << 2
    COMPLETION_REDIRECT = 1 << 3
    UPSTREAM_FORWARDING = 1 << 4
    EGRESS_CONTROL = 1 << 5
    DIRECT_TRANSLATED = 1 << 6
    ENHANCED = 1 << 7  # in the control register: I/O Request Blocking
    DOWNSTREAM_TARGET = 3 << 8  # only in the control register
    UPSTREAM_TARGET = 3 << 10  # only in the control register
    UNCLAIMED_REDIRECT = 1 << 12  # only in the control register


#  What must be on in a port so that no request passes from one function below it to another without the
#  IOMMU (linux drivers/iommu/iommu.c, REQ_ACS_FLAGS).
ISOLATING = (
    AcsBits.SOURCE_VALIDATION
    | AcsBits.REQUEST_REDIRECT
    | AcsBits.COMPLETION_REDIRECT
    | AcsBits.UPSTREAM_FORWARDING
)

_WORDS = (
    (AcsBits.SOURCE_VALIDATION, "SrcValid", "source_validation"),
    (AcsBits.TRANSLATION_BLOCKING, "TransBlk", "translation_blocking"),
    (AcsBits.REQUEST_REDIRECT, "ReqRedir", "request_redirect"),
    (AcsBits.COMPLETION_REDIRECT, "CmpltRedir", "completion_redirect"),
    (AcsBits.UPSTREAM_FORWARDING, "UpstreamFwd", "upstream_forwarding"),
    (AcsBits.EGRESS_CONTROL, "EgressCtrl", "egress_control"),
    (AcsBits.DIRECT_TRANSLATED, "DirectTrans", "direct_translated"),
)
_TARGETS = one_of({0: "direct", 1: "blocked", 2: "redirected"})


@attrs.frozen
class Acs:
    """The ACS structure of a function: which services it has (`capable`) and which are on (`control`)."""

    capable: AcsBits
    control: AcsBits

    def enforces(self, wanted: AcsBits = ISOLATING) -> bool:
        """Return True if each service of `wanted` is on, or is one that the function does not have.

        The specification demands each service of a function that would need it, so a missing one is not
        needed. Egress Control is optional: it counts only if it is on.
        Source: linux drivers/pci/pci.c, pci_acs_flags_enabled.
        """
        needed = wanted & (self.capable | AcsBits.EGRESS_CONTROL)
        return self.control & needed == needed


@attrs.frozen
class Ari:
    """The ARI structure of a function.

    `next_function` is the number (0 to 255) of the next function of the device, 0 in the last one.
    `groups_with_acs` is True if ACS can separate function groups and does so; then `group` is the number of
    the function's group.
    """

    next_function: int
    groups_with_acs: bool
    group: int


def decode_acs(config: ConfigSpace, offset: int) -> Acs | None:
    """Return the ACS structure at `offset`, or None if its two registers were not read."""
    capable, control = config.u16(offset + 4), config.u16(offset + 6)
    if capable is None or control is None:
        return None
    return Acs(AcsBits(capable & 0xFF), AcsBits(control & 0x1FFF))


def decode_ari(config: ConfigSpace, offset: int) -> Ari | None:
    """Return the ARI structure at `offset`, or None if its two registers were not read."""
    capable, control = config.u16(offset + 4), config.u16(offset + 6)
    if capable is None or control is None:
        return None
    return Ari(capable >> 8, bool(capable & control & 2), control >> 4 & 7)


def _acs_flags() -> tuple[Field, ...]:
    return tuple(flag(bit.bit_length() - 1, word, key) for bit, word, key in _WORDS)


def _enhanced(view: View) -> bool:
    return bool(view.bits(4, 2, 7, 1))


def _has_egress(view: View) -> bool:
    return bool(view.bits(4, 2, 5, 1))


STRUCTURES = (
    Structure(
        ACS,
        True,
        (
            Register(
                "capability",
                "ACSCap",
                4,
                2,
                (
                    *_acs_flags(),
                    flag(7, "Enhanced", "enhanced"),
                    Field("egress_vector_bits", "EgressVector", 8, 8, lambda n: n or 256, when=_has_egress),
                ),
            ),
            Register(
                "control",
                "ACSCtl",
                6,
                2,
                (
                    *_acs_flags(),
                    flag(7, "IOBlk", "io_request_blocking", when=_enhanced),
                    flag(12, "UnclaimedRedir", "unclaimed_request_redirect", when=_enhanced),
                    Field("downstream_memory_target", "DSPMem", 8, 2, _TARGETS, when=_enhanced),
                    Field("upstream_memory_target", "USPMem", 10, 2, _TARGETS, when=_enhanced),
                ),
            ),
        ),
    ),
    Structure(
        ARI,
        True,
        (
            Register(
                "capability",
                "ARICap",
                4,
                2,
                (
                    *flags((0, "MFVC", "mfvc_groups"), (1, "ACS", "acs_groups")),
                    Field("next_function", "Next Function", 8, 8),
                ),
            ),
            Register(
                "control",
                "ARICtl",
                6,
                2,
                (
                    *flags((0, "MFVC", "mfvc_groups"), (1, "ACS", "acs_groups")),
                    Field("function_group", "Function Group", 4, 3),
                ),
            ),
        ),
    ),
)
