"""Read the words of lspci about one function: ids, class, driver, BARs, bus numbers.

The words are Linux's view, as the files of sysfs are: lspci prints the addresses and sizes of sysfs.
Source: pciutils lspci.c, show_terse, show_verbose, show_bases, show_rom, show_htype1 (3.5 to 3.13);
        ls-kernel.c ("Kernel driver in use").
"""

import re
from collections.abc import Callable

from pcipt import values as attrs
from pcipt.pci import Address, Bar, BarKind, Bridge, Ids, Resource, Window, WindowKind
from pcipt.pci.bars import ROM_INDEX, UNUSED
from pcipt.pci.raw import Told

_FLAGS = re.ASCII | re.IGNORECASE
ONES = 0xFF  # no device has that revision: it is what a register reads that does not answer
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_COMMAND_BITS = (
    "I/O", "Mem", "BusMaster", "SpecCycle", "MemWINV", "VGASnoop", "ParErr", "Stepping", "SERR", "FastB2B",
    "DisINTx",
)  # fmt: skip
_FLAG = re.compile(r"(\S+)([+-])(?=\s|$)")
_CLASS = re.compile(r"(?:[^:]{0,200}\[([0-9a-f]{4})\]|(?:class )?\[?([0-9a-f]{4})\]?): ", _FLAGS)
_IDS = re.compile(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]", _FLAGS)
_BARE_IDS = re.compile(r"(?:device )?([0-9a-f]{4}):([0-9a-f]{4})(?=\s|$)", _FLAGS)
_REVISION, _INTERFACE = (
    re.compile(r"\(rev ([0-9a-f]{2})\)", _FLAGS),
    re.compile(r"\(prog-if ([0-9a-f]{2})", _FLAGS),
)
_SUBSYSTEM = re.compile(r"\b([0-9a-f]{4}):([0-9a-f]{4})\]?$", _FLAGS)
_BAR = re.compile(
    r"(?:Region (\d): )?(?:\[virtual\] ?)?(Memory|I/O ports) at ([0-9a-f]+|<[\w-]+>)(.*)", _FLAGS
)
_ROM = re.compile(r"(?:\[virtual\] ?)?Expansion ROM at ([0-9a-f]+|<[\w-]+>)(.*)", _FLAGS)
_SIZE = re.compile(r"\[size=(\d{1,6})([KMGT]?)\]", _FLAGS)
_BUSES = re.compile(r"primary=([0-9a-f]{2}), ?secondary=([0-9a-f]{2}), ?subordinate=([0-9a-f]{2})", _FLAGS)
_WINDOW = re.compile(
    r"(I/O|Memory|Prefetchable memory) (?:behind bridge|window \d): ([0-9a-f]{1,16})-([0-9a-f]{1,16})(.*)",
    _FLAGS,
)
_WINDOWS = {
    "i/o": WindowKind.IO, "memory": WindowKind.MEMORY, "prefetchable memory": WindowKind.PREFETCHABLE,
}  # fmt: skip
_DIGITS_32 = 8
_NODE = re.compile(r"(?:.*\bNUMA node )?(\d{1,4})\b", _FLAGS)
#  what lspci prints of a function whose registers read all ones
_ALL_ONES = re.compile(r"!!! Unknown header type 7f", _FLAGS)
_IDE_CONTROL = (0x3F4, 0x374)
_LINE = re.compile(r"(?:\[virtual\] ?)?[^\[:]{0,60}(?::| at )", _FLAGS)
_DIGITS = re.compile(r"[0-9a-f]{4}", _FLAGS)
_BRACKETED = re.compile(r"(.*)\[([0-9a-f]{4})\]", _FLAGS)
#  what lines of lspci may begin with: a line of another kind directly below the heading continues it
_KEYS = re.compile(
    r"(?:Subsystem|DeviceName|Control|Status|Flags|Latency|Interrupt|NUMA node|IOMMU group|Region \d|Memory|"
    r"I/O|Prefetchable|Expansion|Bus|Secondary|BridgeCtl|Capabilities|Kernel|Physical Slot|"
    r"BIST|DiscardTimer|16-bit)\b|\[virtual\]",
    _FLAGS,
)


def is_line_of_words(text: str) -> bool:
    """Return True if a line is one of lspci's below a heading, and no piece of a heading: a name such as
    "Memory Controller [8086:3420]" begins like some of them.
    """
    return _KEYS.match(text) is not None and _LINE.match(text) is not None


@attrs.define
class Words:
    """What the words of lspci tell of one function; None is not told.

    `title` is the heading behind the address. `detailed` is True if lspci was asked for details (-v): then
    what it does not print is zero or absent. `counted` is True if BARs had no numbers (-v instead of -vv), so
    that those of `bars` were counted from their order. `silent` is True if the registers read all ones.
    """

    title: str = ""
    class_code: int | None = None
    vendor: int | None = None
    device: int | None = None
    revision: int | None = None
    interface: int | None = None
    subsystem: tuple[int, int] | None = None
    driver: str | None = None
    numa_node: int | None = None
    command: int | None = None
    buses: tuple[int, int, int] | None = None
    windows: list[Window] = attrs.field(factory=list)
    wide: bool = False
    bars: dict[int, Bar] = attrs.field(factory=dict)
    detailed: bool = False
    counted: bool = False
    silent: bool = False
    _capabilities: bool = False

    @property
    def helps(self) -> bool:
        """Return True if they tell more than names: a number, a driver, a BAR."""
        return self.vendor is not None or self.detailed or self.driver is not None or bool(self.bars)

    @property
    def ids(self) -> Ids:
        """Return the ids that are told. A class code without its programming interface has 00 there."""
        code = None if self.class_code is None else self.class_code << 8 | (self.interface or 0)
        above, below = self.subsystem if self.subsystem is not None else (None, None)
        revision = self.revision if self.revision is not None or self.vendor is None else 0
        return Ids(self.vendor, self.device, code, revision, above, below)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Return the BARs of known size as lines of sysfs `resource`; empty if there are none."""
        lines = [UNUSED] * (ROM_INDEX + 1)
        for index, bar in self.bars.items():
            if bar.size and index <= ROM_INDEX:
                flags = Resource.IO if bar.kind is BarKind.IO else Resource.MEMORY
                flags |= Resource.PREFETCH if bar.prefetchable else 0
                flags |= Resource.MEM_64 if bar.kind is BarKind.MEM64 else 0
                flags |= 0 if bar.address else Resource.UNSET
                lines[index] = Resource(bar.address, bar.size, flags)
        return tuple(lines) if any(line is not UNUSED for line in lines) else ()

    @property
    def told(self) -> Told:
        """Return what they tell of registers."""
        bridge = Bridge(*self.buses, tuple(self.windows), self.wide) if self.buses is not None else None
        bars = tuple(self.bars[index] for index in sorted(self.bars))
        return Told(self.title, self.command, bridge, bars, self.silent or self.revision == ONES)

    def heading(self, text: str) -> None:
        """Read the heading: what stands behind the address."""
        self.title = " ".join(text.split())
        if self.title.startswith('"'):
            self._quoted(self.title)
            return
        names = re.split(r" \((?:rev|prog-if) [0-9a-f]{2}", self.title, maxsplit=1, flags=_FLAGS)[0]
        found = _CLASS.match(self.title)
        if found is not None:
            self.class_code = int(found[1] or found[2], 16)
        pairs = _IDS.findall(names)
        #  plain lspci has them, too, for a vendor without a name: then the class has no number
        bare = _BARE_IDS.match(names.partition(": ")[2]) if found is not None else None
        if pairs or bare is not None:
            vendor, device = pairs[-1] if pairs else bare.groups() if bare is not None else ("", "")
            self.vendor, self.device = int(vendor, 16), int(device, 16)
        if (found := _REVISION.search(self.title)) is not None:
            self.revision = int(found[1], 16)
        if (found := _INTERFACE.search(self.title)) is not None:
            self.interface = int(found[1], 16)

    def continues_heading(self, text: str) -> bool:
        """Return True if `text`, the line below the heading, is the rest of a heading that mail has wrapped.

        That is so if the heading has no ids yet, and either `text` has ids or the heading has the number of
        the class (lspci then shows ids as well, and they must follow).
        """
        if not self.title or self.vendor is not None or is_line_of_words(text):
            return False
        return bool(_IDS.search(text)) or (self.class_code is not None and not self.title.startswith('"'))

    def line(self, text: str) -> None:
        """Read one line of the words; a line of another kind changes nothing."""
        text = " ".join(text.split())
        if _ALL_ONES.match(text) is not None:
            self.silent = True
        if not is_line_of_words(text):
            return
        key, _, value = text.partition(":")
        read = _READERS.get(key.lower())
        if read is not None:
            read(self, value.strip())
        elif (found := _WINDOW.match(text)) is not None:
            self._window(*found.groups())
        elif not self._capabilities:  # behind them the VF BARs of SR-IOV look alike
            self._bar(text)

    def merge(self, other: "Words") -> None:
        """Add what `other` tells and these words do not."""
        for field in attrs.fields(Words):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if not mine and mine != 0 and theirs:
                setattr(self, field.name, theirs)
        self.detailed = self.detailed or other.detailed
        self.silent = self.silent or other.silent

    def read_details(self, value: str) -> None:
        """Read "Flags: bus master, …, NUMA node 0", which stands for the registers with a single -v."""
        self.detailed = True
        self.read_node(value)

    def read_behind(self, _value: str) -> None:
        """Note that the words about capabilities begin."""
        self._capabilities = self.detailed = True

    def read_subsystem(self, value: str) -> None:
        """Read the subsystem, whose ids end the line."""
        if (found := _SUBSYSTEM.search(value)) is not None:
            self.subsystem = int(found[1], 16), int(found[2], 16)

    def read_driver(self, value: str) -> None:
        """Read the driver that is in use."""
        self.driver = value or None

    def read_buses(self, value: str) -> None:
        """Read the bus numbers of a bridge."""
        if (found := _BUSES.match(value)) is not None:
            primary, secondary, subordinate = (int(number, 16) for number in found.groups())
            self.buses = primary, secondary, subordinate

    def read_control(self, text: str) -> None:
        """Read the command register: "Control: I/O+ Mem- …"."""
        flags = dict(_FLAG.findall(text))
        if flags.keys() >= {"I/O", "Mem", "BusMaster"}:
            bits = (1 << bit for bit, name in enumerate(_COMMAND_BITS) if flags.get(name) == "+")
            self.command, self.detailed = sum(bits), True

    def read_node(self, text: str) -> None:
        """Read "0", or the node among the flags of a single -v."""
        if (found := _NODE.match(text)) is not None:
            self.numa_node = int(found[1])

    def _window(self, kind: str, base: str, limit: str, more: str) -> None:
        """Read a window; one that is closed is left out, as `decode_bridge` leaves it out.

        A prefetchable window for 64-bit addresses is printed with 16 digits.
        """
        start, end = int(base, 16), int(limit, 16)
        self.wide = self.wide or (
            _WINDOWS[kind.lower()] is WindowKind.PREFETCHABLE and len(base) > _DIGITS_32
        )
        if start <= end and "[disabled]" not in more.lower():
            prefetchable = kind.lower() == "memory" and "(prefetchable)" in more.lower()
            self.windows.append(
                Window(WindowKind.PREFETCHABLE if prefetchable else _WINDOWS[kind.lower()], start, end)
            )

    def _bar(self, text: str) -> None:
        """Read a BAR or the ROM. One that has neither an address nor a size is left out.

        lspci prints <unassigned> where Linux has no address and the register is 0, <ignored> where it has
        one, which is not told.
        """
        rom, found = _ROM.match(text), _BAR.match(text)
        if rom is not None:
            self._add(ROM_INDEX, BarKind.ROM, rom[1], rom[2], text)
        elif found is not None:
            kind = BarKind.MEM64 if "(64-bit" in found[4] else BarKind.MEM32
            kind = BarKind.IO if found[2].lower() != "memory" else kind
            index = int(found[1]) if found[1] is not None else self._next()
            self.counted = self.counted or found[1] is None
            if index < ROM_INDEX:
                self._add(index, kind, found[3], found[4], text)

    def _next(self) -> int:
        """Return the number of the next BAR without a number: a 64-bit BAR before it took two."""
        before = [index for index in self.bars if index != ROM_INDEX]
        return max(before) + (2 if self.bars[max(before)].kind is BarKind.MEM64 else 1) if before else 0

    def _add(self, index: int, kind: BarKind, place: str, more: str, text: str) -> None:
        size = int(found[1]) * UNITS[found[2].lower()] if (found := _SIZE.search(more)) is not None else None
        address = int(place, 16) & 0xFFFF_FFFF_FFFF_FFFF if place[0] != "<" else 0
        if not address and size is None:
            return
        if kind is BarKind.IO and size == 1 and address in _IDE_CONTROL:
            address |= 2  # lspci clears the two low bits of 3f6 and 376
        decoding = None if "[virtual]" in text else "[disabled" not in more
        if place == "<ignored>" and decoding:
            decoding = None
        prefetchable = "prefetchable" in more and "non-prefetchable" not in more
        bar = Bar(
            index, kind, Address(address), size, prefetchable, decoding, "low-1M" in more, not address
        )  # fmt: skip
        self.bars.setdefault(index, bar)

    def _quoted(self, text: str) -> None:
        """Read the fields of lspci -mm behind the address, each in quotes; -r and -p without."""
        fields = re.findall(r'"([^"]*)"', text)
        numbers = [number_of(field) for field in fields]
        self.class_code, self.vendor, self.device = (numbers + [None] * 3)[:3]
        if (found := re.search(r" -r([0-9a-f]{2})\b", text, _FLAGS)) is not None:
            self.revision = int(found[1], 16)
        if (found := re.search(r" -p([0-9a-f]{2})\b", text, _FLAGS)) is not None:
            self.interface = int(found[1], 16)
        if len(numbers) >= 5 and numbers[3] is not None and numbers[4] is not None:
            self.subsystem = numbers[3], numbers[4]
        names = [_name_of(field) for field in (fields + [""] * 3)[:3]]
        self.title = f"{names[0]}: {names[1]} {names[2]}".strip(": ")

    def field(self, name: str, value: str) -> None:
        """Read one line of lspci -vmm: its name in lower case and its value."""
        number = number_of(value)
        if name in ("class", "vendor", "device"):
            setattr(self, "class_code" if name == "class" else name, number)
            joined = f"{self.title}: " if name == "vendor" else f"{self.title} "
            self.title = f"{joined if self.title else ''}{_name_of(value)}"
        elif name == "svendor" and number is not None:
            self.subsystem = number, 0
        elif name == "sdevice" and number is not None and self.subsystem is not None:
            self.subsystem = self.subsystem[0], number
        elif name in ("rev", "progif") and re.fullmatch(r"[0-9a-f]{2}", value, _FLAGS):
            setattr(self, "revision" if name == "rev" else "interface", int(value, 16))
        elif name == "driver":
            self.driver = value or None
        elif name == "numanode" and value.isascii() and value.isdigit():
            self.numa_node = int(value[:4])


#  what stands before the colon, in lower case -> what reads the rest of the line
_READERS: dict[str, Callable[[Words, str], None]] = {
    "control": Words.read_control,
    "flags": Words.read_details,
    "capabilities": Words.read_behind,
    "subsystem": Words.read_subsystem,
    "kernel driver in use": Words.read_driver,
    "numa node": Words.read_node,
    "bus": Words.read_buses,
}


def number_of(field: str) -> int | None:
    """Return the id in a field of the machine-readable forms ("Name [8086]", "8086"); None if it has none."""
    found = _BRACKETED.fullmatch(field)
    digits = found[2] if found is not None else field if _DIGITS.fullmatch(field) else None
    return int(digits, 16) if digits is not None else None


def _name_of(field: str) -> str:
    """Return the name in a field of the machine-readable forms."""
    found = _BRACKETED.fullmatch(field)
    return found[1].strip() if found is not None else field
