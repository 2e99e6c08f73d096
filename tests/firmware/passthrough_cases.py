"""Evidence for rules of passthrough, made of a few words."""

import struct

import attrs

from pcipt.firmware.passthrough.host import HostFacts, XenSays
from pcipt.firmware.passthrough.host_rules import judge_host
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.firmware.passthrough.verdict import Evidence, Reason, Unknown
from pcipt.pci import decode_machine, parse_sbdf
from pcipt.xen.releases import parse_version
from tests.machines import config, function

EXPRESS, MSIX, ACS = 0x10, 0x11, 0x000D
ENDPOINT, ROOT_PORT, UPSTREAM, DOWNSTREAM, TO_PCI = 0x0, 0x4, 0x5, 0x6, 0x7


def express(raw, port_type, *, acs=False):
    """Give a raw function a PCI Express capability, and ACS if asked for: 4096 bytes of config space."""
    data = bytearray(raw.config).ljust(4096, b"\0")
    data[6] = 0x10
    data[0x34] = 0x40
    struct.pack_into("<BBH", data, 0x40, EXPRESS, 0, 0x2 | port_type << 4)
    if acs:
        struct.pack_into("<I", data, 0x100, 1 << 16 | ACS)
    return attrs.evolve(raw, config=bytes(data))


def conventional(raw):
    """Give a raw function 256 bytes and a capability that is not PCI Express's (power management)."""
    data = bytearray(raw.config).ljust(256, b"\0")
    data[6] = 0x10
    data[0x34] = 0x40
    data[0x40] = 0x01
    return attrs.evolve(raw, config=bytes(data))


def evidence_of(*raws, **known):
    """Make evidence of raw functions; config spaces count as read to where they end."""
    return Evidence(decode_machine(raws), {raw.sbdf: len(raw.config or b"") for raw in raws}, **known)


def host(**known):
    """Make what a host can do: a PV dom0 whose IOMMU Xen uses, but for what is `known` otherwise."""
    said = XenSays(iommu=True, remaps=True)
    given = {"under_xen": True, "dom0": Guest.PV, "release": "4.20.4", "said": said, **known}
    return judge_host(HostFacts(xen=parse_version(given["release"]), **given))


def said_by(rule, address, evidence):
    """Ask one rule: {code: verdict} of its reasons, and what it did not know."""
    said = list(rule(evidence.machine.functions[parse_sbdf(address)], evidence))
    reasons = {each.code: each.verdict.value for each in said if isinstance(each, Reason)}
    return reasons, [each.what for each in said if isinstance(each, Unknown)]


def text_of(rule, address, evidence):
    said = rule(evidence.machine.functions[parse_sbdf(address)], evidence)
    return " ".join(each.text for each in said if isinstance(each, Reason))


__all__ = ["config", "conventional", "evidence_of", "express", "function", "host", "said_by", "text_of"]
