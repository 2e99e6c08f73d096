"""Errors: Advanced Error Reporting, Downstream Port Containment, Root Complex Event Collector.

Source: PCI Express Base 6.0 §7.8.4 (AER), §7.9.14 (DPC), §7.9.10 (event collector).
"""

from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, flags, hexa, one_of
from pcipt.pci.capabilities.ports import root

AER, EVENT_COLLECTOR, CONTAINMENT = 0x0001, 0x0007, 0x001D

_UNCORRECTABLE = flags(
    (4, "DLP", "data_link_protocol"),
    (5, "SDES", "surprise_down"),
    (12, "TLP", "poisoned"),
    (13, "FCP", "flow_control"),
    (14, "CmpltTO", "completion_timeout"),
    (15, "CmpltAbrt", "completer_abort"),
    (16, "UnxCmplt", "unexpected_completion"),
    (17, "RxOF", "receiver_overflow"),
    (18, "MalfTLP", "malformed"),
    (19, "ECRC", "ecrc"),
    (20, "UnsupReq", "unsupported_request"),
    (21, "ACSViol", "acs_violation"),
    (22, "UncorrIntErr", "internal"),
    (23, "BlockedTLP", "multicast_blocked"),
    (24, "AtomicOpBlocked", "atomic_blocked"),
    (25, "TLPBlockedErr", "prefix_blocked"),
    (26, "PoisonTLPBlocked", "poisoned_blocked"),
)
_CORRECTABLE = flags(
    (0, "RxErr", "receiver"),
    (6, "BadTLP", "bad_tlp"),
    (7, "BadDLLP", "bad_dllp"),
    (8, "Rollover", "replay_rollover"),
    (12, "Timeout", "replay_timeout"),
    (13, "AdvNonFatalErr", "advisory_nonfatal"),
    (14, "CorrIntErr", "internal"),
    (15, "HeaderOF", "header_log_overflow"),
)
_REASONS = one_of({0: "uncorrectable error", 1: "ERR_NONFATAL", 2: "ERR_FATAL", 3: "see the extension"})
_TRIGGERS = one_of({0: "disabled", 1: "fatal errors", 2: "fatal and nonfatal errors"})
_BUS_NUMBERS = 2  # version of the structure from which on it has bus numbers


def _collects_other_buses(view: View) -> bool:
    return view.version >= _BUS_NUMBERS


STRUCTURES = (
    Structure(
        AER,
        True,
        (
            Register("uncorrectable_status", "UESta", 0x04, 4, _UNCORRECTABLE),
            Register("uncorrectable_mask", "UEMsk", 0x08, 4, _UNCORRECTABLE),
            Register("uncorrectable_severity", "UESvrt", 0x0C, 4, _UNCORRECTABLE),
            Register("correctable_status", "CESta", 0x10, 4, _CORRECTABLE),
            Register("correctable_mask", "CEMsk", 0x14, 4, _CORRECTABLE),
            Register(
                "capability",
                "AERCap",
                0x18,
                4,
                (
                    Field("first_error", "First Error Pointer", 0, 5, hexa(2)),
                    *flags(
                        (5, "ECRCGenCap", "ecrc_generation"),
                        (6, "ECRCGenEn", "ecrc_generation_enable"),
                        (7, "ECRCChkCap", "ecrc_check"),
                        (8, "ECRCChkEn", "ecrc_check_enable"),
                        (9, "MultHdrRecCap", "several_headers"),
                        (10, "MultHdrRecEn", "several_headers_enable"),
                        (11, "TLPPfxPres", "prefix_logged"),
                        (12, "HdrLogCap", "header_logged"),
                    ),
                ),
            ),
            Register(
                "header_log",
                "HeaderLog",
                0x1C,
                16,
                tuple(Field(f"word{n}", "", 32 * n, 32, hexa(8)) for n in range(4)),
            ),
            Register(
                "root_command",
                "RootCmd",
                0x2C,
                4,
                flags((0, "CERptEn", "correctable"), (1, "NFERptEn", "nonfatal"), (2, "FERptEn", "fatal")),
                when=root,
            ),
            Register(
                "root_status",
                "RootSta",
                0x30,
                4,
                (
                    *flags(
                        (0, "CERcvd", "correctable"),
                        (1, "MultCERcvd", "several_correctable"),
                        (2, "UERcvd", "uncorrectable"),
                        (3, "MultUERcvd", "several_uncorrectable"),
                        (4, "FirstFatal", "first_fatal"),
                        (5, "NonFatalMsg", "nonfatal_message"),
                        (6, "FatalMsg", "fatal_message"),
                    ),
                    Field("interrupt_message", "IntMsg", 27, 5),
                ),
                when=root,
            ),
            Register(
                "error_source",
                "ErrorSrc",
                0x34,
                4,
                (
                    Field("correctable", "ERR_COR", 0, 16, hexa(4)),
                    Field("uncorrectable", "ERR_FATAL/NONFATAL", 16, 16, hexa(4)),
                ),
                when=root,
            ),
        ),
    ),
    Structure(
        CONTAINMENT,
        True,
        (
            Register(
                "capability",
                "DpcCap",
                4,
                2,
                (
                    Field("interrupt_message", "INT Msg", 0, 5, form="#{}"),
                    *flags(
                        (5, "RPExt", "root_port_extensions"),
                        (6, "PoisonedTLP", "poisoned_blocking"),
                        (7, "SwTrigger", "software_trigger"),
                    ),
                    Field("pio_log_size", "RP PIO Log", 8, 4),
                    flag(12, "DL_ActiveErr", "link_active_error"),
                ),
            ),
            Register(
                "control",
                "DpcCtl",
                6,
                2,
                (
                    Field("trigger", "Trigger", 0, 2, _TRIGGERS),
                    *flags(
                        (2, "Cmpl", "completion_control"),
                        (3, "INT", "interrupt"),
                        (4, "ErrCor", "correctable_message"),
                        (5, "PoisonedTLP", "poisoned_blocking"),
                        (6, "SwTrigger", "software_trigger"),
                        (7, "DL_ActiveErr", "link_active_error"),
                    ),
                ),
            ),
            Register(
                "status",
                "DpcSta",
                8,
                2,
                (
                    flag(0, "Trigger", "triggered"),
                    Field("reason", "Reason", 1, 2, _REASONS),
                    *flags((3, "INT", "interrupt"), (4, "RPBusy", "busy")),
                    Field("extension", "TriggerExt", 5, 2, hexa(2)),
                    Field("pio_first_error", "RP PIO ErrPtr", 8, 5, hexa(2)),
                ),
            ),
            Register("source", "Source", 10, 2, (Field("requester", "", 0, 16, hexa(4)),)),
        ),
    ),
    Structure(
        EVENT_COLLECTOR,
        True,
        (
            Register(
                "devices",
                "RCiEPBitmap",
                4,
                4,
                (
                    Field(
                        "devices",
                        "Devices",
                        0,
                        32,
                        lambda raw: [device for device in range(32) if raw >> device & 1],
                    ),
                ),
            ),
            Register(
                "buses",
                "AssociatedBusNumbers",
                8,
                4,
                (Field("first", "first", 8, 8, hexa(2)), Field("last", "last", 16, 8, hexa(2))),
                when=_collects_other_buses,
            ),
        ),
    ),
)
