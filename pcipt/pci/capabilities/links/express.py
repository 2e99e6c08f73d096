"""PCI Express: the structure with its device registers. Link, slot and root registers have their modules.

Source: PCI Express Base 6.0 §7.5.3.2-5 (Capabilities, Device), §7.5.3.15-17 (Device 2).
"""

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
from pcipt.pci.capabilities.links.link import LINK, LINK2
from pcipt.pci.capabilities.links.slot import ROOT, SLOT, slot_power, watts
from pcipt.pci.capabilities.ports import (
    any_endpoint,
    completes_hints,
    endpoints,
    faces_down,
    forwards_ari,
    requests,
    root_port,
    routes,
    second_version,
    to_pci,
    upward,
    upward_or_legacy,
)
from pcipt.pci.structures import EXPRESS, PORT_TYPES

_L0S = one_of(dict(enumerate(("<64ns", "<128ns", "<256ns", "<512ns", "<1us", "<2us", "<4us", "unlimited"))))
_L1 = one_of(dict(enumerate(("<1us", "<2us", "<4us", "<8us", "<16us", "<32us", "<64us", "unlimited"))))
_TIMEOUT_RANGES = one_of(
    {
        0x0: "Not Supported",
        0x1: "Range A",
        0x2: "Range B",
        0x3: "Range AB",
        0x6: "Range BC",
        0x7: "Range ABC",
        0xE: "Range BCD",
        0xF: "Range ABCD",
    }
)
_TIMEOUTS = one_of(
    {
        0x0: "50us to 50ms",
        0x1: "50us to 100us",
        0x2: "1ms to 10ms",
        0x5: "16ms to 55ms",
        0x6: "65ms to 210ms",
        0x9: "260ms to 900ms",
        0xA: "1s to 3.5s",
        0xD: "4s to 13s",
        0xE: "17s to 64s",
    }
)
_OBFF = one_of({0: "Not Supported", 1: "Via message", 2: "Via WAKE#", 3: "Via message/WAKE#"})
_OBFF_ON = one_of({0: "Disabled", 1: "Via message A", 2: "Via message B", 3: "Via WAKE#"})
_POWER_REDUCTION = one_of({0: "Not Supported", 1: "Dev Specific", 2: "Form Factor Dev Specific"})
_CACHE_LINES = one_of({0: "Not Supported", 1: "64byte cachelines", 2: "128byte cachelines"})


def _has_flr(view: View) -> bool:
    return any_endpoint(view) and bool(view.bits(4, 4, 28, 1))


def _has_prefixes(view: View) -> bool:
    return bool(view.bits(0x24, 4, 21, 1))


_DEVICE = (
    Register(
        "capability",
        "Express",
        2,
        2,
        (
            Field("version", "Version", 0, 4),
            Field("type", "Type", 4, 4, PORT_TYPES.get),
            flag(8, "Slot", "slot", when=faces_down),
            Field("interrupt_message", "MSI", 9, 5),
        ),
    ),
    Register(
        "device_capability",
        "DevCap",
        4,
        4,
        (
            Field("max_payload", "MaxPayload", 0, 3, power_of_two(128), "{} bytes"),
            Field("phantom_functions", "PhantFunc", 3, 2, lambda bits: (1 << bits) - 1),
            Field("l0s_latency", "Latency L0s", 6, 3, _L0S, when=endpoints),
            Field("l1_latency", "Latency L1", 9, 3, _L1, when=endpoints),
            flag(5, "ExtTag", "extended_tag"),
            flag(12, "AttnBtn", "attention_button", when=upward_or_legacy),
            flag(13, "AttnInd", "attention_indicator", when=upward_or_legacy),
            flag(14, "PwrInd", "power_indicator", when=upward_or_legacy),
            flag(15, "RBE", "role_based_errors"),
            flag(28, "FLReset", "flr", when=any_endpoint),
            Field("slot_power_limit_mw", "SlotPowerLimit", 18, 10, slot_power, watts, when=upward),
        ),
    ),
    Register(
        "device_control",
        "DevCtl",
        8,
        2,
        (
            *flags(
                (0, "CorrErr", "report_correctable"),
                (1, "NonFatalErr", "report_nonfatal"),
                (2, "FatalErr", "report_fatal"),
                (3, "UnsupReq", "report_unsupported"),
                (4, "RlxdOrd", "relaxed_ordering"),
                (8, "ExtTag", "extended_tag"),
                (9, "PhantFunc", "phantom_functions"),
                (10, "AuxPwr", "aux_power"),
                (11, "NoSnoop", "no_snoop"),
            ),
            flag(15, "BrConfRtry", "bridge_config_retry", when=to_pci),
            flag(15, "FLReset", "initiate_flr", when=_has_flr),
            Field("max_payload", "MaxPayload", 5, 3, power_of_two(128), "{} bytes"),
            Field("max_read_request", "MaxReadReq", 12, 3, power_of_two(128), "{} bytes"),
        ),
    ),
    Register(
        "device_status",
        "DevSta",
        0xA,
        2,
        flags(
            (0, "CorrErr", "correctable_error"),
            (1, "NonFatalErr", "nonfatal_error"),
            (2, "FatalErr", "fatal_error"),
            (3, "UnsupReq", "unsupported_request"),
            (4, "AuxPwr", "aux_power"),
            (5, "TransPend", "transactions_pending"),
        ),
    ),
)
_DEVICE2 = (
    Register(
        "device_capability2",
        "DevCap2",
        0x24,
        4,
        (
            Field("completion_timeout_ranges", "Completion Timeout", 0, 4, _TIMEOUT_RANGES),
            flag(4, "TimeoutDis", "timeout_disable"),
            flag(10, "NROPrPrP", "no_relaxed_ordering_passing"),
            flag(11, "LTR", "ltr"),
            flag(16, "10BitTagComp", "completer_10bit_tag"),
            flag(17, "10BitTagReq", "requester_10bit_tag"),
            Field("obff", "OBFF", 18, 2, _OBFF),
            flag(20, "ExtFmt", "extended_format"),
            flag(21, "EETLPPrefix", "end_to_end_prefix"),
            Field(
                "max_end_to_end_prefixes",
                "MaxEETLPPrefixes",
                22,
                2,
                lambda n: n or 4,
                when=_has_prefixes,
            ),
            Field("emergency_power_reduction", "EmergencyPowerReduction", 24, 2, _POWER_REDUCTION),
            flag(26, "EmergencyPowerReductionInit", "emergency_power_reduction_init"),
            flag(31, "FRS", "frs"),
            Field("ln_system_cls", "LN System CLS", 14, 2, _CACHE_LINES, when=root_port),
            Field(
                "tph_completer",
                "TPHComp",
                12,
                2,
                one_of({0: False, 1: True, 3: True}),
                when=completes_hints,
            ),
            Field(
                "extended_tph_completer",
                "ExtTPHComp",
                12,
                2,
                one_of({0: False, 1: False, 3: True}),
                when=completes_hints,
            ),
            flag(5, "ARIFwd", "ari_forwarding", when=forwards_ari),
            flag(6, "Routing", "atomic_routing", when=routes),
            flag(7, "32bit", "atomic_32bit"),
            flag(8, "64bit", "atomic_64bit"),
            flag(9, "128bitCAS", "atomic_128bit_cas"),
        ),
        when=second_version,
    ),
    Register(
        "device_control2",
        "DevCtl2",
        0x28,
        2,
        (
            Field("completion_timeout", "Completion Timeout", 0, 4, _TIMEOUTS),
            flag(4, "TimeoutDis", "timeout_disable"),
            flag(10, "LTR", "ltr"),
            flag(12, "10BitTagReq", "requester_10bit_tag"),
            Field("obff", "OBFF", 13, 2, _OBFF_ON),
            flag(5, "ARIFwd", "ari_forwarding", when=forwards_ari),
            flag(6, "ReqEn", "atomic_requester", when=requests),
            flag(7, "EgressBlck", "atomic_egress_blocking", when=routes),
        ),
        when=second_version,
    ),
)

STRUCTURES = (Structure(EXPRESS, False, (*_DEVICE, *LINK, *SLOT, *ROOT, *_DEVICE2, *LINK2)),)
