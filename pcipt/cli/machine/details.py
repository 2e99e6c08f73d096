"""What `pcipt show` tells of a function beside what the service uses: registers of capabilities, Linux's
facts, the IOMMU unit.
"""

from collections.abc import Collection, Mapping

from pcipt import values as attrs
from pcipt.cli.machine.pvh import acpi_tables_of, memory_map_of, xen_version
from pcipt.cli.machine.source import Source
from pcipt.host.files import Depth
from pcipt.host.function.facts import DeviceFacts, LinkFacts, read_device_facts, read_facts
from pcipt.host.policy.places import read_host_bridges
from pcipt.pci import ConfigSpace, Function, Sbdf
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.capabilities.details import Detail, details_of, value_of
from pcipt.pci.capabilities.fields import Value
from pcipt.pci.config import HeaderType
from pcipt.pci.identity import host_bridge_of, serial_number
from pcipt.pci.isolation.resets import has_flr, reset_ways
from pcipt.pci.raw import LinuxFacts
from pcipt.pci.structures import EXPRESS, PM

_LINE, _PIN = 0x3C, 0x3D
_PINS = {1: "A", 2: "B", 3: "C", 4: "D"}
_NO_LINE = 0xFF


@attrs.frozen
class Details:
    """What decides how a function can be passed through. None is unknown or absent.

    `capabilities` are all capabilities with their registers. `flr` is whether the function has a Function
    Level Reset, `own_resets` are the ways by which its own registers reset it alone. `power_state` is of its
    registers, or Linux's belief if they were not read. `link` has speed and width now and the highest
    possible, in the same way. `irq` is Linux's number, or that in the function's register without Linux.
    `slot_number` is the number in the port above the function. `unit` is the IOMMU unit that serves it.
    `host_bridge` is the ACPI name of the host bridge at which its path begins. `serial` is its Device Serial
    Number, which only root may see.
    """

    capabilities: tuple[Detail, ...]
    flr: bool | None
    own_resets: tuple[str, ...]
    power_state: str | None
    no_soft_reset: bool | None
    link: LinkFacts | None
    interrupt_pin: str | None
    irq: int | None
    slot_number: int | None
    unit: str | None
    linux: LinuxFacts
    device: DeviceFacts
    host_bridge: str | None = None
    serial: int | None = None


def read_details(source: Source, root: str | None, functions: Collection[Function]) -> dict[Sbdf, Details]:
    """Return the details of functions of `source`. What cannot be read is None in them.

    `root` is the directory of the machine's files, None for a dump.

    Raises: InputError if the functions cannot be read.
    """
    wanted = {function.sbdf for function in functions}
    raws = source.read(Depth.FULL, wanted.__contains__)  # the bridges above come with them
    configs = {raw.sbdf: ConfigSpace(raw.config or b"") for raw in raws}
    linux = _linux(source, root, wanted)
    units = _units(source, root, functions)
    nothing = ConfigSpace(b"")
    bridges = read_host_bridges(root) if root is not None else {}
    return {
        function.sbdf: attrs.evolve(
            _details(
                configs.get(function.sbdf, nothing),
                _slot_number(configs.get(function.parent or function.sbdf, nothing), function),
                units.get(function.sbdf),
                linux.get(function.sbdf, LinuxFacts()),
                read_device_facts(root, function.sbdf) if root is not None else DeviceFacts(),
            ),
            host_bridge=host_bridge_of(function, bridges),
            serial=serial_number(configs.get(function.sbdf, nothing), function.capabilities),
        )
        for function in functions
    }


def _details(
    config: ConfigSpace, slot: int | None, unit: str | None, linux: LinuxFacts, device: DeviceFacts
) -> Details:
    """Return the details of one function from its registers and what else is known of it."""
    if not config.answers:
        config = ConfigSpace(b"")
    capabilities, _ = walk_capabilities(config)
    details = details_of(config, capabilities)
    soft = value_of(details, PM, "control_status", "no_soft_reset")
    line = config.u8(_LINE)
    return Details(
        capabilities=details,
        flr=has_flr(config, capabilities),
        own_resets=reset_ways(config, capabilities),
        power_state=_text(value_of(details, PM, "control_status", "power_state")) or device.power_state,
        no_soft_reset=soft if isinstance(soft, bool) else None,
        link=_link(details) or device.link,
        interrupt_pin=_PINS.get(config.u8(_PIN) or 0),
        irq=device.irq if device.irq is not None or line == _NO_LINE else line,
        slot_number=slot,
        unit=unit,
        linux=linux,
        device=device,
    )


def _link(details: tuple[Detail, ...]) -> LinkFacts | None:
    """Return the link by the registers of PCI Express; None if there is no link or it was not read."""
    names = (("link_status", "speed"), ("link_status", "width"))
    limits = (("link_capability", "max_speed"), ("link_capability", "max_width"))
    numbers = [_number(value_of(details, EXPRESS, *name)) for name in (*names, *limits)]
    return LinkFacts(*numbers) if numbers[3] is not None else None


def _slot_number(config: ConfigSpace, function: Function) -> int | None:
    """Return the number of the slot in the registers of the port above a function (`config`), or None.

    `config` is the function's own if it is on a root bus; then there is no slot above it.
    """
    if function.parent is None or config.header is not HeaderType.BRIDGE:
        return None
    capabilities, _ = walk_capabilities(config)
    return _number(value_of(details_of(config, capabilities), EXPRESS, "slot_capability", "number"))


def _number(value: Value) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) else None


def _linux(source: Source, root: str | None, wanted: set[Sbdf]) -> Mapping[Sbdf, LinuxFacts]:
    """Return Linux's facts. A function without reset methods is told from an old kernel by all the others."""
    if root is None:
        return {}
    facts = read_facts(root, wanted)
    if any(each.reset_methods is None for each in facts.values()):
        facts = read_facts(root, source.addresses())
    return facts


def _units(source: Source, root: str | None, functions: Collection[Function]) -> Mapping[Sbdf, str]:
    """Return the IOMMU unit of each function that has one by the tables that can be read.

    Headers are enough: a scope that covers one function behind a port covers all of its bus, with ARI too.
    """
    tables = acpi_tables_of(root) if root is not None else None
    if root is None or tables is None:
        return {}
    from pcipt.firmware.coverage import IommuScope, snapshot_from_machine  # few may read the tables
    from pcipt.pci.requester import requester_of

    machine = source.machine(Depth.HEADER)
    scope = IommuScope(snapshot_from_machine("", machine))
    scope = scope.with_tables(tables, memory_map_of(root), xen_version(root))
    units = {each.sbdf: scope.unit_of(requester_of(each, machine)) for each in functions}
    return {sbdf: unit for sbdf, unit in units.items() if unit is not None}
