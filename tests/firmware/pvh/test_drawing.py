import re
from xml.etree import ElementTree as ET

import pytest

from pcipt.firmware.pvh.areas import Area, Treatment
from pcipt.firmware.pvh.drawing import box_height, draw_layout, size_words
from pcipt.pci import Range
from tests.pvh import layout_of

SVG = "{http://www.w3.org/2000/svg}"


def boxes(text):
    root = ET.fromstring(text)
    return root, list(root.iter(f"{SVG}g"))


def test_every_area_has_its_box_its_label_and_its_words():
    areas = layout_of().areas
    root, groups = boxes(draw_layout(areas))
    assert len(groups) == len(areas)
    at = None
    for area, group in zip(areas, groups, strict=True):
        rect = group.find(f"{SVG}rect")
        assert rect.get("class") == area.treatment.value
        assert at is None or int(rect.get("y")) == at  # boxes stand on each other without a gap
        at = int(rect.get("y")) + int(rect.get("height"))
        words = [text.text or "" for text in group.iter(f"{SVG}text")]
        assert words[0] == f"{area.range.start:#x}"
        assert words[2] == size_words(area.range.size)
        assert str(area.range) in group.find(f"{SVG}title").text
    assert int(root.get("height")) > at


def test_it_is_made_for_light_and_dark_and_loads_nothing():
    text = draw_layout(layout_of().areas)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    for kind in Treatment:
        assert f".{kind.value}{{fill:" in light
        assert f".{kind.value}{{fill:" in dark
    assert not re.search(r"href|url\(|@import|<script|<image", text)


def contrast(one, other):
    """Compute the contrast ratio of WCAG 2.1 between two colours such as #cfe2f3."""

    def luminance(colour):
        full = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
        parts = [int(full[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_labels_can_be_read_on_every_colour():
    style = re.search(r"<style>(.*?)</style>", draw_layout(()), re.DOTALL)[1]
    for part in style.split("@media"):
        text = re.search(r"text\{[^}]*fill:(#\w+)", part)[1]
        fills = [re.search(rf"\.{kind.value}\{{fill:(#\w+)", part)[1] for kind in Treatment]
        assert all(contrast(text, fill) >= 4.5 for fill in fills)


def test_the_scale_is_log_like():
    heights = [
        box_height(Area(Range(0, 1 << power), Treatment.RAM, "", "")) for power in (0, 12, 13, 20, 30, 40, 63)
    ]
    assert heights[0] == heights[1]  # nothing is smaller than a page
    assert heights == sorted(heights)
    assert heights[5] - heights[4] == heights[4] - heights[3]  # ten doublings each
    assert heights[-1] < 12 * heights[0]
    hole = box_height(Area(Range(0, 1 << 40), Treatment.HOLE, "", ""))
    assert hole < heights[5]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (1, "1 B"),
        (4096, "4 KiB"),
        (0x9FC00, "639 KiB"),
        (3 << 19, "1.5 MiB"),
        (12 << 30, "12 GiB"),
        (1 << 63, "8 EiB"),
    ],
)
def test_sizes(size, words):
    assert size_words(size) == words


def test_text_from_outside_is_escaped():
    nasty = '</text><script>&"'
    area = Area(Range(0, 4096), Treatment.IDENTITY, nasty, nasty)
    _, (group,) = boxes(draw_layout((area,), title=nasty))
    assert [text.text for text in group.iter(f"{SVG}text")][1] == nasty


def test_an_empty_layout_can_be_drawn():
    assert boxes(draw_layout(()))[1] == []
