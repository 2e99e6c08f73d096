"""Translation of addresses by the device: ATS, Page Request, PASID; and TPH, which names interrupt vectors.

Source: PCI Express Base 6.0 §10.5.1 (ATS), §10.5.2 (Page Request), §7.8.9 (PASID), §7.9.13 (TPH).
"""

from pcipt.pci.capabilities.fields import Field, Register, Structure, flag, flags, one_of, plus
from pcipt.pci.structures import ATS

PAGE_REQUEST, TPH, PASID = 0x0013, 0x0017, 0x001B
_STEERING = one_of({0: "none", 1: "in this structure", 2: "in the MSI-X table"})
_MODES = one_of({0: "no steering tags", 1: "interrupt vectors", 2: "device specific"})
_REQUESTS = one_of({0: "off", 1: "on", 3: "extended"})

STRUCTURES = (
    Structure(
        ATS,
        True,
        (
            Register(
                "capability",
                "ATSCap",
                4,
                2,
                (
                    Field("queue_depth", "Invalidate Queue Depth", 0, 5),
                    *flags((5, "PageAligned", "page_aligned"), (6, "GlobalInv", "global_invalidate")),
                ),
            ),
            Register(
                "control",
                "ATSCtl",
                6,
                2,
                (flag(15, "Enable", "enable"), Field("smallest_unit", "Smallest Translation Unit", 0, 5)),
            ),
        ),
    ),
    Structure(
        PAGE_REQUEST,
        True,
        (
            Register("control", "PRICtl", 4, 2, flags((0, "Enable", "enable"), (1, "Reset", "reset"))),
            Register(
                "status",
                "PRISta",
                6,
                2,
                flags(
                    (0, "RF", "response_failure"),
                    (1, "UPRGI", "unexpected_index"),
                    (8, "Stopped", "stopped"),
                    (15, "PASIDReq", "pasid_required"),
                ),
            ),
            Register("capacity", "Page Request Capacity", 8, 4, (Field("requests", "", 0, 32),)),
            Register("allocation", "Page Request Allocation", 12, 4, (Field("requests", "", 0, 32),)),
        ),
    ),
    Structure(
        PASID,
        True,
        (
            Register(
                "capability",
                "PASIDCap",
                4,
                2,
                (
                    *flags((1, "Exec", "execute"), (2, "Priv", "privileged")),
                    Field("max_width", "Max PASID Width", 8, 5),
                ),
            ),
            Register(
                "control",
                "PASIDCtl",
                6,
                2,
                flags((0, "Enable", "enable"), (1, "Exec", "execute"), (2, "Priv", "privileged")),
            ),
        ),
    ),
    Structure(
        TPH,
        True,
        (
            Register(
                "capability",
                "TPHCap",
                4,
                4,
                (
                    *flags(
                        (1, "IntVec", "interrupt_vectors"),
                        (2, "DevSpec", "device_specific"),
                        (8, "ExtReq", "extended_requester"),
                    ),
                    Field("steering_table", "Steering table", 9, 2, _STEERING),
                    Field("entries", "Entries", 16, 11, plus(1)),
                ),
            ),
            Register(
                "control",
                "TPHCtl",
                8,
                4,
                (Field("mode", "Mode", 0, 3, _MODES), Field("requester", "Requester", 8, 2, _REQUESTS)),
            ),
        ),
    ),
)
