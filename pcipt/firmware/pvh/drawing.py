"""Draw the areas of an address space as SVG: one labelled box per area, address 0 at the top.

The height of a box grows with the logarithm of its size, so that a page is visible next to terabytes. Text
from devices and tables is escaped; the document loads nothing.
"""

from collections.abc import Sequence
from html import escape

from pcipt.firmware.pvh.areas import Area, Treatment

_ROW, _PER_DOUBLING, _HOLE_ROW = 20, 3, 16  # pixels
_LEFT, _WIDTH, _RIGHT, _TOP = 170, 360, 560, 92
_LONGEST = 76

_COLOURS = {
    #                    light      dark
    Treatment.RAM: ("#cfe2f3", "#1f4468"),
    Treatment.IDENTITY: ("#d5ead0", "#2a5326"),
    Treatment.TRAPPED: ("#fde4c0", "#6b4a14"),
    Treatment.EMULATED: ("#ead9f5", "#4f3468"),
    Treatment.WITHHELD: ("#f4cfcf", "#6a2b2b"),
    Treatment.HOLE: ("#ffffff", "#1b1b1b"),
}
_MEANINGS = {
    Treatment.RAM: "memory of the domain",
    Treatment.IDENTITY: "mapped, same address of the machine",
    Treatment.TRAPPED: "Xen handles each access",
    Treatment.EMULATED: "a device that Xen plays",
    Treatment.WITHHELD: "the machine has it, the domain does not",
    Treatment.HOLE: "nothing there",
}


def draw_layout(areas: Sequence[Area], title: str = "Address space of the hardware domain") -> str:
    """Return a complete SVG document that shows the areas from top to bottom.

    `areas` must be sorted by address and without gaps, as `areas_from_layers` returns them; they may be
    empty. Texts are cut to fit.
    """
    parts: list[str] = []
    at = _TOP
    for area in areas:
        height = box_height(area)
        parts.append(_box(area, at, height))
        at += height
    end = areas[-1].range.last + 1 if areas else 0
    parts.append(f'<text class="address" x="{_LEFT - 10}" y="{at + 4}">{end:#x}</text>')
    width, height = 1180, at + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
    head += f' height="{height}" role="img" aria-label="{escape(title)}">'
    style, page = f"<style>{_style()}</style>", f'<rect class="page" width="{width}" height="{height}"/>'
    heading = f'<text class="title" x="20" y="30">{escape(title)}</text>'
    return "\n".join([head, style, page, heading, *_legend(), *parts, "</svg>\n"])


def box_height(area: Area) -> int:
    """Return the height of an area's box in pixels.

    It grows with each doubling of the size above one page. The height of a hole grows half as fast.
    """
    doublings = max(0, area.range.size.bit_length() - 13)
    if area.treatment is Treatment.HOLE:
        return _HOLE_ROW + doublings * _PER_DOUBLING // 2
    return _ROW + doublings * _PER_DOUBLING


def size_words(size: int) -> str:
    """Return a size in bytes as text in the largest unit in which the number is at least 1: "1.5 MiB".

    The number has one decimal unless it is whole; 0 is "0 B"; EiB is the largest unit.
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    unit = min((size.bit_length() - 1) // 10, len(units) - 1) if size else 0
    number = size / (1 << 10 * unit)
    return f"{number:.0f} {units[unit]}" if number == int(number) else f"{number:.1f} {units[unit]}"


def _box(area: Area, at: int, height: int) -> str:
    """Return the SVG of one area. `at` is the top of its box, `height` its height, in pixels."""
    middle = at + height // 2 + 4
    kind = area.treatment.value
    what = area.what if area.treatment is not Treatment.HOLE else ""
    return (
        f"<g><title>{escape(f'{area.range} {kind}: {area.what}; {area.why}')}</title>"
        f'<rect class="{kind}" x="{_LEFT}" y="{at}" width="{_WIDTH}" height="{height}"/>'
        f'<text class="address" x="{_LEFT - 10}" y="{at + 4}">{area.range.start:#x}</text>'
        f'<text class="what" x="{_LEFT + 10}" y="{middle}">{escape(_cut(what, 44))}</text>'
        f'<text class="size" x="{_LEFT + _WIDTH + 80}" y="{middle}">{size_words(area.range.size)}</text>'
        f'<text class="why" x="{_RIGHT + 64}" y="{middle}">{escape(_cut(_reason(area), _LONGEST))}</text></g>'
    )


def _reason(area: Area) -> str:
    """Return the text beside the box of an area: its treatment and the reason; empty for a hole."""
    return "" if area.treatment is Treatment.HOLE else f"{area.treatment.value}: {area.why}"


def _legend() -> list[str]:
    """Return the SVG elements that explain the colours."""
    found = []
    for number, (kind, meaning) in enumerate(_MEANINGS.items()):
        x, y = 20 + number % 3 * 380, 46 + number // 3 * 20
        found.append(f'<rect class="{kind.value}" x="{x}" y="{y}" width="14" height="14"/>')
        found.append(f'<text class="why" x="{x + 22}" y="{y + 12}">{kind.value}: {meaning}</text>')
    return found


def _style() -> str:
    """Return the CSS for light and dark displays."""
    light = "".join(f".{kind.value}{{fill:{colours[0]}}}" for kind, colours in _COLOURS.items())
    dark = "".join(f".{kind.value}{{fill:{colours[1]}}}" for kind, colours in _COLOURS.items())
    return (
        "text{font:12px system-ui,sans-serif;fill:#1a1a1a}"
        ".title{font-size:17px;font-weight:600}"
        ".address{font-family:ui-monospace,monospace;text-anchor:end;font-size:11px}"
        ".size{text-anchor:end;fill:#555}.why{fill:#555}"
        "rect{stroke:#8a8a8a;stroke-width:.6}.page{fill:#fff;stroke:none}"
        f"{light}"
        "@media (prefers-color-scheme:dark){text{fill:#eee}.size,.why{fill:#b5b5b5}"
        f"rect{{stroke:#777}}.page{{fill:#121212;stroke:none}}{dark}}}"
    )


def _cut(text: str, longest: int) -> str:
    """Return the text, cut to `longest` characters if it is longer; the last of them is then an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
