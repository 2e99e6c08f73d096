"""Read which devices a guest's configuration file of xl gives to the guest, and how.

Sources: tools/xl/xl_parse.c (parse_config_data), tools/libs/util/libxlu_pci.c (parse_bdf, parse_vslot,
         xlu_pci_parse_spec_string, xlu_rdm_parse), xl-pci-configuration(5); alike from 4.17 to 4.22.
"""

import re
from collections.abc import Mapping

from pcipt import values as attrs
from pcipt.errors import MalformedError
from pcipt.pci.address import LIMITS, Sbdf, SlotFilter
from pcipt.pci.notation.xl_config import Setting, parse_xl_config

_BDF = re.compile(
    r"(?:([0-9a-f]+):)?([0-9a-f]+):([0-9a-f]+)\.([0-9a-f]+|\*)(.*)", re.ASCII | re.IGNORECASE | re.DOTALL
)
_VSLOT = re.compile(r"(?:0x)?([0-9a-f]+)(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+)", re.ASCII)
_POLICIES = ("strict", "relaxed")
#: switches of a device, which the file may also set for all: pci_permissive=1
SWITCHES = ("permissive", "msitranslate", "seize", "power_mgmt")
_SEGMENT, _SLOT = 0xFFFF, 0x1F
KINDS = ("hvm", "pv", "pvh")  # xl takes the first that begins with the text
_OLD_KINDS = {"hvm": "hvm", "generic": "pv"}  # of `builder`


@attrs.frozen
class XlDevice:
    """One item of the list `pci`.

    `text` is the item. `slot` names a function, or with `.*` all of a device. It is None if the item has
    `name=`, the name of an assignable device (`name`). `vslot` is the device number in the guest. `switches`
    are those that are on. `relaxed` is True for rdm_policy=relaxed. `odd` are switches whose value is no
    number: xl takes it for 0.
    """

    text: str
    slot: SlotFilter | None
    name: str = ""
    vslot: int | None = None
    switches: frozenset[str] = frozenset()
    relaxed: bool = False
    odd: tuple[str, ...] = ()

    def names(self, sbdf: Sbdf) -> bool:
        """Return True if the address of the item is that of a function, or of its device."""
        return self.slot is not None and self.slot.matches(sbdf)

    @property
    def options(self) -> str:
        """Return what follows the address: a slot, options; with the mark before it."""
        found = _BDF.fullmatch(self.text)
        return found[5] if found is not None else ""


@attrs.frozen
class XlGuest:
    """What a configuration file says of a guest and its devices.

    `source` is the file, `line` that of `pci`. `kind` is pv, hvm or pvh. `memory` and `most` are MiB, None
    if the file does not have them. `passthrough` is the option of that name, or empty. `rdm_policy` is the
    policy in the option `rdm`, or empty: xl ignores it (`libxlu_pci.c`, xlu_rdm_parse). `single` is True if
    `pci` is not a list and not empty, which xl ignores.
    """

    source: str
    name: str
    kind: str
    devices: tuple[XlDevice, ...] = ()
    line: int = 0
    memory: int | None = None
    most: int | None = None
    passthrough: str = ""
    rdm_policy: str = ""
    single: bool = False


def parse_xl_guest(text: str, source: str) -> XlGuest:
    """Return the guest that a configuration file describes. `source` is the file.

    Raises: MalformedError with the line and what is wrong there, where xl refuses the file.
    """
    settings = parse_xl_config(text, source)
    pci = settings.get("pci")
    listed = pci.value if pci is not None and not isinstance(pci.value, str) else ()
    common = frozenset(name for name in SWITCHES if _is_on(_text(settings, f"pci_{name}")))
    devices = []
    for item in listed:
        line = pci.line if pci is not None else 0
        if not isinstance(item, str):  # xl would leave out this item and all that follow
            raise MalformedError(source, line, "an item of pci is a list", "line")
        try:
            devices.append(parse_device(item, common))
        except ValueError as error:
            raise MalformedError(source, line, f"{item[:80]!r} of pci: {error}", "line") from error
    rdm = re.search(r"(?:^|,)policy=([a-z]+)", _text(settings, "rdm"))
    return XlGuest(
        source=source,
        name=_text(settings, "name"),
        kind=_kind(settings, source),
        devices=tuple(devices),
        line=pci.line if pci is not None else 0,
        memory=_number(settings, "memory"),
        most=_number(settings, "maxmem"),
        passthrough=_text(settings, "passthrough"),
        rdm_policy=rdm[1] if rdm is not None else "",
        single=pci is not None and isinstance(pci.value, str) and pci.value != "",
    )


def parse_device(text: str, common: frozenset[str] = frozenset()) -> XlDevice:
    """Return the device that an item of `pci` names. `common` are switches that are on for all devices.

    Raises: ValueError that says what xl does not take.
    """
    found = _BDF.fullmatch(text)
    device, rest = XlDevice(text, None, switches=common), text
    if found is not None:
        device, rest = attrs.evolve(device, slot=_slot(found)), found[5]
        if rest.startswith("@"):
            number, rest = _vslot(rest[1:])
            device = attrs.evolve(device, vslot=number)
        if rest and not rest.startswith(","):
            raise ValueError(f"{rest[:20]!r} follows the address; a comma is expected")
        rest = rest.removeprefix(",")
    elif "=" not in text.partition(",")[0]:
        raise ValueError("it is no address; expected [segment:]bus:device.function in hexadecimal")
    while rest:
        pair, _, rest = rest.partition(",")
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"the option {pair[:20]!r} has no value")
        device = _with_option(device, key, value)
    if (device.slot is None) == (not device.name):
        raise ValueError("it must have either an address or a name")
    return device


def _with_option(device: XlDevice, key: str, value: str) -> XlDevice:
    """Return a device with one more option. Raises: ValueError if xl does not take it."""
    if key == "bdf":
        found = _BDF.fullmatch(value)
        if found is None:
            raise ValueError(f"bdf={value[:40]} is no address")
        return attrs.evolve(device, slot=_slot(found))
    if key == "vslot":
        return attrs.evolve(device, vslot=_vslot(value)[0])
    if key == "name":
        return attrs.evolve(device, name=value)
    if key == "rdm_policy":
        if value not in _POLICIES:
            raise ValueError(f"rdm_policy is {' or '.join(_POLICIES)}")
        return attrs.evolve(device, relaxed=value == "relaxed")
    if key not in SWITCHES:
        raise ValueError(f"xl does not know the option {key[:20]!r}")
    odd = () if _NUMBER.match(value) else (f"{key}={value}",)
    others = device.switches - {key}
    return attrs.evolve(
        device, switches=others | ({key} if _is_on(value) else set()), odd=(*device.odd, *odd)
    )


def _slot(found: re.Match[str]) -> SlotFilter:
    """Return the function or device of an address. Raises: ValueError that names the field too large."""
    digits = (found[1] or "0", found[2], found[3], found[4])
    limits = (_SEGMENT, LIMITS["bus"], LIMITS["device"], LIMITS["function"])
    numbers = [None if text == "*" else int(text, 16) for text in digits]
    for name, number, limit in zip(Sbdf._fields, numbers, limits, strict=True):
        if number is not None and number > limit:
            raise ValueError(f"{name} {number:x} is above {limit:x}")
    return SlotFilter(*numbers)


def _vslot(text: str) -> tuple[int, str]:
    """Return a device number in the guest and what follows it. Raises: ValueError if it is none.

    The number is hexadecimal, so 20 is above the limit.
    """
    found = _VSLOT.fullmatch(text)
    if found is None:
        raise ValueError(f"the slot {text[:20]!r} is not a number")
    number = int(found[1], 16)
    if number > _SLOT:
        raise ValueError(f"the slot {found[1]} is above {_SLOT:x} (hexadecimal)")
    return number, found[2]


def _is_on(text: str) -> bool:
    """Return True if C's atoi makes a number other than 0 of a text: "yes" is off."""
    found = _NUMBER.match(text)
    return found is not None and int(found[1]) != 0


def _kind(settings: Mapping[str, Setting], source: str) -> str:
    """Return the kind of guest; PV if the file does not say it. Raises: MalformedError if xl knows none."""
    told: list[str] = []
    for key, words in (("type", {kind: kind for kind in KINDS}), ("builder", _OLD_KINDS)):
        if key not in settings or not isinstance(settings[key].value, str):
            continue
        text = _text(settings, key)
        kinds = [kind for word, kind in words.items() if word.startswith(text)]
        if not kinds or (told and told[0] != kinds[0]):
            why = f"{key}={text[:20]!r} is no kind of guest, or does not agree with type="
            raise MalformedError(source, settings[key].line, why, "line")
        told.append(kinds[0])
    return told[0] if told else "pv"


def _text(settings: Mapping[str, Setting], name: str) -> str:
    """Return the text of a setting; empty if it is missing or a list."""
    value = settings[name].value if name in settings else ""
    return value if isinstance(value, str) else ""


def _number(settings: Mapping[str, Setting], name: str) -> int | None:
    """Return the number of a setting; None if it is missing or no number."""
    text = _text(settings, name)
    base = 16 if text[:2] == "0x" else 10
    return int(text, base) if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", text, re.ASCII) else None
