"""Find the functions that somebody may have meant by a text that names none.

Addresses are compared, not letters: whatever was readable of bus and device is right. Nothing is suggested
that has another bus or device.
"""

import re
from collections.abc import Collection, Iterable

from pcipt.pci.address import LIMITS, Sbdf, SlotFilter
from pcipt.pci.notation.spellings import plain_address

MOST = 4  # suggestions
SEGMENT_DIGITS = 4  # at least, where a segment is written in full
_LIMIT = 4000  # characters that are looked at
_FLAGS = re.ASCII | re.IGNORECASE
_ADDRESS = re.compile(
    r"(?<![0-9a-z:.])(?:([0-9a-f]{4,8})[:_])?([0-9a-f]{2})[:_]([01][0-9a-f])\.([0-7])(?![0-9a-z])", _FLAGS
)
_HOP = re.compile(r"_[01][0-9a-f]\.[0-7]-", _FLAGS)  # of a PCI path: its bridges are not what is meant
_SEPARATORS = re.compile(r"[^0-9a-z*\x80-\U0010FFFF]+", _FLAGS)  # digits of other scripts separate nothing
_HEX = re.compile(r"(?:0x)?([0-9a-f]{1,8})", _FLAGS)


def nearest(existing: Iterable[Sbdf], meant: Sbdf) -> Sbdf | None:
    """Return the address of `existing` that has the bus and the device of `meant` and is most similar to it;
    None if there is none.

    The same segment comes first, then the nearest function number.
    """
    alike = (sbdf for sbdf in existing if sbdf[1:3] == meant[1:3])
    return min(
        alike,
        key=lambda sbdf: (abs(sbdf.segment - meant.segment), abs(sbdf.function - meant.function), sbdf),
        default=None,
    )


def suggestions(existing: Collection[Sbdf], text: str) -> tuple[Sbdf, ...]:
    """Return the functions of `existing` that `text` may have meant, at most four, the likeliest first.

    Addresses inside a longer text are found. If there are none, the numbers between any separators are read
    as an address: the colon typed for the point leads to the function. A function number that is wrong, or
    that no function has, leads to the nearest function of the same device. If bus or device is not readable,
    only a single function that has all that was readable is suggested.
    """
    found: dict[Sbdf, None] = {}
    for reading in _readings(text[:_LIMIT]):
        found.update(dict.fromkeys(_fitting(existing, reading)))
    return tuple(found)[:MOST]


def _readings(text: str) -> list[SlotFilter]:
    """Return what `text` may be read as; nothing for a PCI path. A field that was not readable is None."""
    if _HOP.search(text):
        return []
    inside = [
        SlotFilter(int(segment or "0", 16), int(bus, 16), int(device, 16), int(function, 16))
        for segment, bus, device, function in _ADDRESS.findall(text)
    ]
    if inside:
        return inside
    plain = plain_address(text)
    words = _words(plain)
    if len(words) == 2 and ":" not in plain:
        words = ["0", *words]  # device.function
    elif len(words) == 2:
        words = [*words, "*"]  # bus:device
    if len(words) == 3:
        words = [*words, "*"] if _begins_with_segment(words) else ["0", *words]
    if len(words) != len(LIMITS):
        return []
    segment, bus, device, function = map(_number, words)
    if (bus or 0) > LIMITS["bus"] or (device or 0) > LIMITS["device"]:
        return []  # it was readable, and no function can have it
    if function is not None and function > LIMITS["function"]:
        function = None
    return [SlotFilter(segment, bus, device, function)]


def _words(plain: str) -> list[str]:
    """Return the numbers of a text, without the word `pci` in front, as Xorg and libvirt write it.

    There are none if it is not known whether they are decimal, as Xorg's are.
    """
    words = [word for word in _SEPARATORS.split(plain) if word]
    if not words or words[0].lower() != "pci":
        return words
    numbers = words[1:]
    doubtful = any(word.isdecimal() and int(word) != int(word, 16) for word in numbers)
    return [] if doubtful and plain[3:4] == ":" else numbers


def _begins_with_segment(words: list[str]) -> bool:
    """Return True if three words are segment, bus and device rather than bus, device and function.

    A bus has two digits and is never written with four. The third word is a device if it has two digits and
    is too large for a function.
    """
    first, _, third = (word.lower().removeprefix("0x") for word in words)
    return len(first) >= SEGMENT_DIGITS or (len(third) > 1 and (_number(third) or 0) > LIMITS["function"])


def _number(word: str) -> int | None:
    """Return the value of a hexadecimal word; None if it is not hexadecimal."""
    found = _HEX.fullmatch(word)
    return int(found[1], 16) if found is not None else None


def _fitting(existing: Iterable[Sbdf], reading: SlotFilter) -> list[Sbdf]:
    """Return the functions of `existing` that a reading may mean."""
    if reading.bus is not None and reading.device is not None:
        meant = Sbdf(reading.segment or 0, reading.bus, reading.device, reading.function or 0)
        near = nearest(existing, meant)
        return [near] if near is not None else []
    found = [sbdf for sbdf in existing if reading.matches(sbdf)]
    return found if len(found) == 1 and reading.function is not None else []
