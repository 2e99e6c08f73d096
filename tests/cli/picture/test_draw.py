"""Pictures of machines: what they say, and that no label covers another one. The labels are measured in the
document that was drawn, with a width for each character that no monospaced font exceeds.
"""

import io
import re
import unicodedata
from contextlib import redirect_stdout
from xml.etree import ElementTree as ET

import attrs
import pytest

from pcipt.cli.main import main
from pcipt.cli.picture.draw import cut, draw
from pcipt.cli.picture.gathered import make_picture
from pcipt.cli.picture.style import FILLS, LINE, PAPER, TEXT, style_sheet
from pcipt.cli.picture.values import Holder
from pcipt.firmware.passthrough.check import check_functions
from pcipt.firmware.passthrough.groups import groups_of, sets_of
from pcipt.firmware.passthrough.reasons import Verdict
from pcipt.firmware.passthrough.verdict import Evidence
from pcipt.firmware.regions.regions import Mapped, Region, RegionDevice, RegionKind, Regions
from pcipt.pci import decode_machine, parse_sbdf
from tests.firmware.pvh.test_drawing import contrast
from tests.machines import bridge, function
from tests.trees import REPO

SVG = "{http://www.w3.org/2000/svg}"
CHARACTER, ASCENT, DESCENT = 0.62, 0.95, 0.25  # of the size of the font
SIZES = {"title head": 15}  # pixels, by class; else 11
LONGEST = 'A "vendor" <whose> name & that of its device are longer than any page is wide ' * 3
NAMES = (LONGEST, "名称很长的设备" * 9, "x", "")


class Names:
    """Names that are long, wide, empty, or not for XML."""

    def device(self, ids, _title=""):
        return NAMES[ids.device % len(NAMES)]

    def row(self, ids, _title=""):
        return self.device(ids)


def flat(count):
    """Functions on root buses, 256 on each, with drivers."""
    for at in range(count):
        bus, device, number = at // 256, at // 8 % 32, at % 8
        driver = (None, "pciback", "ahci", "a-driver-with-a-very-long-name")[at % 4]
        yield function(f"{bus:02x}:{device:02x}.{number}", device=at, driver=driver)


def deep(count):
    """One chain of bridges, at most 250 of them; the other functions are at its end and along it."""
    bridges = min(count // 2, 250)
    above = None
    for bus in range(bridges):
        raw = bridge(f"{bus:02x}:00.0", bus + 1, bridges, parent=above)
        above = str(raw.sbdf)
        yield raw
    for at in range(count - bridges):
        bus, slot = at % bridges, at // bridges
        parent = f"{bus - 1:02x}:00.0" if bus else None
        yield function(f"{bus:02x}:{1 + slot // 8:02x}.{slot % 8}", device=at, parent=parent)


def evidence_of(raws):
    """What is known of a machine: some functions are given away, some have reserved regions."""
    machine = decode_machine(list(raws))
    plain = [each.sbdf for each in machine.functions.values() if each.bridge is None]
    owners = {
        sbdf: ("guest 12345", "quarantine", "nobody (orphan)")[at % 3] for at, sbdf in enumerate(plain[::5])
    }
    regions = tuple(
        Region(
            RegionKind.RMRR, 0, 0xFFFFFFFF_00000000 + 0x10000 * at, 0xFFFFFFFF_0000FFFF + 0x10000 * at, (),
            tuple(RegionDevice(sbdf, present=True) for sbdf in plain[at : at + 40]), mapped,
        )
        for at, mapped in enumerate(Mapped)
    )  # fmt: skip
    return Evidence(machine, dict.fromkeys(machine.functions, 256), owners=owners, regions=Regions(regions))


def picture_of(evidence):
    sets = sets_of(evidence, groups_of(evidence))
    return make_picture(evidence, sets, check_functions(evidence.machine.functions, evidence), Names())


def boxes(root):
    """Give (left, top, right, bottom, text) of each label."""
    for text in root.iter(f"{SVG}text"):
        words = text.text or ""
        size = SIZES.get(text.get("class"), 11)
        wide = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in words)
        x, y = float(text.get("x")), float(text.get("y"))
        yield x, y - ASCENT * size, x + wide * CHARACTER * size, y + DESCENT * size, words


def overlapping(labels):
    """Give the pairs of labels that cover each other."""
    open_ones = []
    for label in sorted((each for each in labels if each[4]), key=lambda each: each[1]):
        open_ones = [each for each in open_ones if each[3] > label[1]]
        yield from ((each, label) for each in open_ones if each[0] < label[2] and label[0] < each[2])
        open_ones.append(label)


MACHINES = [(make, count) for make in (flat, deep) for count in (10, 100, 1000)]


@pytest.fixture(scope="module", params=MACHINES, ids=lambda each: f"{each[0].__name__}-{each[1]}")
def drawn(request):
    make, count = request.param
    evidence = evidence_of(make(count))
    return evidence, draw(picture_of(evidence))


def test_no_label_covers_another_one_or_leaves_the_page(drawn):
    evidence, text = drawn
    root = ET.fromstring(text)
    labels = list(boxes(root))
    assert len(labels) > 2 * len(evidence.machine.functions)
    assert list(overlapping(labels)) == []
    width, height = float(root.get("width")), float(root.get("height"))
    assert [each for each in labels if each[0] < 0 or each[2] > width or each[3] > height] == []


def test_labels_that_cover_each_other_are_found():
    label = (10, 10, 50, 20, "x")
    assert list(overlapping([label, (49, 19, 60, 30, "y")])) != []
    assert list(overlapping([label, (50, 10, 60, 20, "y"), (10, 20, 50, 30, "z")])) == []


def test_every_function_is_there_once_with_who_holds_it(drawn):
    evidence, text = drawn
    found = {}
    for group in ET.fromstring(text).iter(f"{SVG}g"):
        words = [each.text or "" for each in group.iter(f"{SVG}text")]
        assert words[0] not in found
        found[words[0]] = ([each.get("class") for each in group.iter(f"{SVG}rect")], words)
    assert set(found) == set(map(str, evidence.machine.functions))
    fills = {"guest 12345": "guest", "quarantine": "aside", "nobody (orphan)": "nobody"}
    for sbdf, owner in evidence.owners.items():
        classes, words = found[str(sbdf)]
        assert classes[0] == fills[owner]
        assert cut(owner, 14) in words
        assert "R1" in " ".join(words) or sbdf not in evidence.regions.regions[0].present
    for sbdf, each in evidence.machine.functions.items():
        if each.bridge is not None:
            assert found[str(sbdf)][0] == ["host"]  # no verdict
            assert any(word.startswith("bus ") for word in found[str(sbdf)][1])


def test_the_page_is_neither_a_strip_nor_a_tower(drawn):
    root = ET.fromstring(drawn[1])
    assert 0.5 < float(root.get("width")) / float(root.get("height")) < 2.5


def test_owners_sets_regions_and_verdicts_are_told():
    raws = [function("00:01.0", driver="ahci"), function("00:01.1"), function("00:02.0", driver="pciback")]
    evidence = evidence_of(raws)
    evidence = attrs.evolve(evidence, owners={parse_sbdf("00:01.1"): "guest 3"})
    text = draw(picture_of(evidence))
    words = [each.text or "" for each in ET.fromstring(text).iter(f"{SVG}text")]
    assert "guest 3: 0000:00:01.1" in words
    assert "set aside, dom0 has them (pciback): 0000:00:02.0" in words
    assert any(each.startswith("set 1 (") and "0000:00:01.0, 0000:00:01.1" in each for each in words)
    assert any(each.startswith("R1 RMRR 0xffffffff00000000-") and "mapped by Xen" in each for each in words)
    assert words.count("set 1") == 3
    assert {"warn", "refuse", "unknown"} & set(words)


def test_it_loads_nothing_and_says_nothing_of_devices_as_markup():
    text = draw(picture_of(evidence_of(flat(10))))
    assert not re.search(r"href|url\(|@import|<script|<image", text)
    assert "&lt;whose&gt;" in text
    assert "<whose>" not in text


@pytest.mark.parametrize("at", [0, 1], ids=["light", "dark"])
def test_it_can_be_read_on_light_and_dark_displays(at):
    sheet = style_sheet().split("@media (prefers-color-scheme:dark)")[at]
    for name, colours in FILLS.items():
        assert f".{name}{{fill:{colours[at]}}}" in sheet
        assert contrast(colours[at], TEXT[at]) > 7
    assert contrast(PAPER[at], TEXT[at]) > 7
    faint = re.search(r"\.faint\{fill:(#[0-9a-f]{6})\}", sheet)[1]
    assert contrast(PAPER[at], faint) > 4.5
    assert contrast(PAPER[at], LINE[at]) > 3
    assert {each.name.lower() for each in (*Holder, *Verdict)} == set(FILLS)


def test_a_machine_without_functions_has_a_picture():
    root = ET.fromstring(draw(picture_of(evidence_of(()))))
    assert root.get("aria-label") == "0 PCI functions on 0 root buses"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


def test_the_command_writes_it_to_stdout_or_into_a_file(tmp_path):
    machine = ("tree", "-n", "--root", REPO / "fixtures/sysfs/lab-pv")
    code, text = run(*machine, "--svg")
    assert code == 0
    assert ET.fromstring(text).tag == f"{SVG}svg"
    assert run(*machine, "--svg", tmp_path / "machine.svg") == (0, "")
    assert (tmp_path / "machine.svg").read_text() == text
    shown = {each.text for each in ET.fromstring(text).iter(f"{SVG}text")}
    assert {"root bus 0000:00", "0000:02:00.0", "8086:10d3", "e1000e", "set 1"} <= shown


def test_a_file_that_cannot_be_written_is_told(tmp_path, capsys):
    code = main(["tree", "--root", str(REPO / "fixtures/sysfs/lab-pv"), "--svg", str(tmp_path / "no/x.svg")])
    assert code == 1
    assert capsys.readouterr().err == (
        f"pcipt: {tmp_path}/no/x.svg: no such file or directory; `ls {tmp_path}` shows what is there\n"
    )


def test_a_picture_of_a_dump_needs_no_files_of_the_machine(tmp_path):
    rows = "00:00.0 Host bridge: A maker\n00: 86 80 10 15 06 00 90 00 00 00 00 06 00 00 00 00\n"
    (tmp_path / "dump").write_text(rows)
    code, text = run("tree", "--dump", tmp_path / "dump", "--svg")
    assert code == 0
    assert "not known here" in text  # reserved regions
