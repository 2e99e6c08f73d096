"""Tell whether Xen maps pages for dom0 by itself when dom0 accesses a hole (the option dom0=pf-fixup). Pure.

With it, a page that pcipt has unmapped comes back at the next access by dom0, one page of 4 KiB at a time.
Accesses of devices (DMA) map nothing. A release build of Xen prints nothing about it.
Source: Xen arch/x86/hvm/emulate.c (hvmemul_do_io, hwdom_fixup_p2m), arch/x86/dom0_build.c
        (parse_arch_dom0_param); the releases: `PF_FIXUP` and the two facts behind it.
"""

from pcipt import values as attrs
from pcipt.xen.command_line import switch_in
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.releases import PF_FIXUP, PF_FIXUP_BY_DEFAULT, PF_FIXUP_OF_RESERVED

CURE = "boot Xen with dom0=no-pf-fixup"


@attrs.frozen
class PfFixup:
    """Whether dom0's first access to a hole maps the page 1:1.

    If `certain` is False, it is not known, and `on` is True: what was unmapped may come back. `reserved` is
    True if reserved memory is mapped, too; else only pages outside of the firmware's memory map are.
    """

    on: bool = False
    certain: bool = True
    reserved: bool = False

    @property
    def word(self) -> str:
        """Return "on", "off" or "unknown"."""
        if not self.certain:
            return "unknown"
        return "on" if self.on else "off"


OFF = PfFixup()


def pf_fixup_of(identity: XenIdentity, command_line: str | None) -> PfFixup:
    """Return whether the fixup is on. `command_line` is Xen's, or None if it is not known.

    A PV dom0 has no map of its own, and so no fixup. If the version's third number is not known, the answer
    is certain only if all versions of the branch give the same one.
    """
    version = identity.version
    if identity.dom0 is Dom0Kind.PV or PF_FIXUP.known_of(version) is False:
        return OFF
    by_default = PF_FIXUP_BY_DEFAULT.known_of(version)
    said = switch_in(command_line, "dom0", "pf-fixup") if command_line is not None else None
    if said is False or (said is None and command_line is not None and by_default is False):
        return OFF
    certain = PF_FIXUP.known_of(version) is True and command_line is not None
    certain = certain and (said is True or by_default is True)
    return PfFixup(on=True, certain=certain, reserved=PF_FIXUP_OF_RESERVED.of(version))
