"""Access Control Services and Alternative Routing-ID: what separates functions from each other.

Both registers of ACS have the same seven bits; those of Enhanced ACS are in the control register only.
Source: PCI Express Base 6.0 §7.7.11 (ACS), §6.12.1; §7.8.8 (ARI).
"""

from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, flags, one_of
from pcipt.pci.structures import ACS, ARI

_SERVICES = (
    (0, "SrcValid", "source_validation"),
    (1, "TransBlk", "translation_blocking"),
    (2, "ReqRedir", "request_redirect"),
    (3, "CmpltRedir", "completion_redirect"),
    (4, "UpstreamFwd", "upstream_forwarding"),
    (5, "EgressCtrl", "egress_control"),
    (6, "DirectTrans", "direct_translated"),
)
_TARGETS = one_of({0: "direct", 1: "blocked", 2: "redirected"})


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
                    *flags(*_SERVICES),
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
                    *flags(*_SERVICES),
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
