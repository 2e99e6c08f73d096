import time

import pytest

from pcipt.host.dump import parse_dump
from pcipt.host.paste.machines import MOST
from pcipt.pci import Sbdf, decode_machine
from tests.host.paste.lspci_samples import BRIDGE, BYTES, CARD, WORDS, rows
from tests.machines import config

OTHER = config(vendor=0x1234, device=0x1111, class_code=0x030000)


def of(*texts):
    return parse_dump("\n".join(texts).encode())


def test_words_and_bytes_are_joined_in_any_order():
    first, second = of(WORDS, BYTES), of(BYTES, WORDS)
    assert first.functions == second.functions
    assert first.notes == second.notes == ()
    found = decode_machine(first.functions).functions[Sbdf(0, 1, 0, 0)]
    assert [(bar.index, bar.address, bar.size) for bar in found.bars] == [
        (0, 0, 8),
        (1, 0, 256 << 20),  # Linux has given it no address
        (5, 0xF063_D000, 2048),
        (6, 0, 65536),
    ]
    assert found.driver == "ahci"
    assert first.about == "2 functions, with 64 bytes of config space and words"


def test_words_and_bytes_function_by_function_are_joined():
    words, (bridge, card) = WORDS.split("\n\n"), BYTES.strip().split("\n\n")
    mixed = of(words[0], bridge, words[1], card)
    assert mixed.functions == of(WORDS, BYTES).functions
    assert mixed.notes == ()


def test_bytes_of_a_boot_log_are_not_compared_with_what_linux_has_now():
    moved = config(
        vendor=0x8086, device=0x9C03, class_code=0x010601, command=7, bars=(0, 0, 0, 0, 0, 0xE000_0000)
    )
    log = f"pci 0000:01:00.0: config space:\n{rows(moved)}"
    for text in ((WORDS, log), (log, WORDS)):
        card = decode_machine(of(*text).functions).functions[Sbdf(0, 1, 0, 0)]
        assert [(bar.index, bar.address) for bar in card.bars] == [(5, 0xE000_0000)]
        assert (card.driver, card.findings) == ("ahci", ())


def test_bytes_of_one_function_and_words_of_all():
    found = of(WORDS, f"01:00.0 x\n{rows(CARD)}").functions
    assert [raw.config for raw in found] == [None, CARD]
    assert found[1].told is None


def test_the_longer_bytes_are_kept():
    longer = CARD + bytes(192)
    for order in ((CARD, longer), (longer, CARD)):
        (raw,) = of(*(f"01:00.0 x\n{rows(each)}" for each in order)).functions
        assert (raw.config, raw.findings) == (longer, ())


def test_status_bits_that_changed_do_not_make_another_machine():
    later = bytearray(CARD)
    later[6] ^= 0x10
    found = of(f"01:00.0 x\n{rows(CARD)}", f"01:00.0 x\n{rows(later)}")
    assert (len(found.functions), found.notes) == (1, ())


SECOND = f"00:1c.0 x\n{rows(OTHER)}\n01:00.0 x\n{rows(CARD)}"


def test_of_several_machines_the_first_is_taken_and_the_others_are_named():
    found = of(
        "root@one:~# lspci -xxx",
        BYTES,
        "root@two:~# lspci -xxx",
        SECOND,
        "root@three:~# lspci",
        SECOND.replace("34 12", "35 12"),
    )
    assert [raw.config for raw in found.functions] == [BRIDGE, CARD]
    (note,) = found.notes
    assert "3 machines" in note
    assert 'lspci -xxx" (line 2), and leaves out' in note
    assert '"root@two:~# lspci -xxx"' in note
    assert '"root@three:~# lspci"' in note
    assert [finding.code for finding in found.functions[0].findings] == ["duplicate-address"]
    assert found.functions[1].findings == ()


def test_what_moved_between_two_readings_is_not_there_twice():
    before, after = (f"00:1c.0 x\n{rows(BRIDGE)}\n{at}:00.0 x\n{rows(CARD)}" for at in ("01", "02"))
    found = of("$ lspci -xxx", before, "$ lspci -xxx  # later", after)
    assert [str(raw.sbdf) for raw in found.functions] == ["0000:00:1c.0", "0000:01:00.0"]
    (note,) = found.notes
    assert "2 machines, or one at several times" in note
    more = f"{before}\n02:00.0 x\n{rows(CARD)}"
    for order in ((before, more), (more, before)):  # one may be a part of the other
        assert (len(of(*order).functions), of(*order).notes) == (3, ())


def test_before_and_after_a_function_ceased_to_answer_are_two_times():
    before = "01:00.0 VGA compatible controller [0300]: X [10de:2f04] (rev a1)"
    after = "01:00.0 VGA compatible controller [0300]: X [10de:2f04] (rev ff)"
    found = of(before, after)
    assert [raw.told.silent for raw in found.functions] == [False]
    assert "2 machines, or one at several times" in found.notes[0]
    found = of(before, f"{before}\n\t!!! Unknown header type 7f")  # lspci -nn, then -vv
    assert ([raw.told.silent for raw in found.functions], found.notes) == ([True], ())


def test_words_and_bytes_of_two_machines_find_together():
    second_words = WORDS.replace("1b36:000c", "1234:1111").replace("ahci", "other")
    found = of(WORDS, second_words, BYTES, SECOND)
    assert [raw.config for raw in found.functions] == [BRIDGE, CARD]
    assert [raw.driver for raw in found.functions] == ["pcieport", "ahci"]
    assert [[finding.code for finding in raw.findings] for raw in found.functions] == [
        ["duplicate-address"],
        [],
    ]
    assert "2 machines" in found.notes[0]


def test_names_alone_tell_machines_apart():
    plain = "00:1c.0 PCI bridge: Example A\n\tFlags: fast devsel\n"
    found = of(plain, plain.replace(" A", " B"))
    assert len(found.notes) == 1


@pytest.mark.parametrize("text", [
    "".join(f"00:1f.2 x\n{rows(config(device=number))}\n" for number in range(1500)),
    "".join(f"{255 - at // 32:02x}:{31 - at % 32:02x}.0 0100: 8086:{at:04x}\n" for at in range(8000)),
    "00:00.0 " + "a " * 500_000,
    "00:00.0 " + "[8086:" * 100_000,
    "00:00.0 a\n" + "Region 0: Memory at " * 50_000,
    "00:00.0 a\n" + "> " * 200_000,
    "/".join(["00:00.0"] * 50_000),
    "[" * 500_000,
    "<a>" * 200_000,
    "=\n" * 300_000,
    '00:00.0 "' + '" "' * 200_000,
], ids=lambda text: text[:16])  # fmt: skip
def test_no_text_takes_long(text):
    begun = time.process_time()
    found = parse_dump(text.encode())
    assert time.process_time() - begun < 5
    assert len(found.notes) <= 1 + MOST
