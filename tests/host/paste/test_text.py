import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.host.dump import parse_dump
from pcipt.host.paste.text import lines_of
from tests.host.paste.lspci_samples import BYTES, WORDS

PLAIN = f"{WORDS}\n{BYTES}"


def each_line(before="", after="\n", text=PLAIN):
    return "".join(f"{before}{line}{after}" for line in text.splitlines())


def numbered(form):
    return "".join(form.format(number, line) for number, line in enumerate(PLAIN.splitlines(), 1))


def folded_bytes():
    rows = (f"{row[:27]}\n{row[28:]}" if row[2:4] == ": " else row for row in PLAIN.splitlines())
    return "\n".join(rows)


MANGLED = {
    "quoted": each_line("> "),
    "quoted twice": each_line("> > "),
    "quoted >>": each_line(">>"),
    "quoted without a space": each_line(">"),
    "quoted with a bar": each_line("| "),
    "in a table": each_line("| ", " |\n"),
    "in paragraphs": each_line("<p>", "</p>\n"),
    "indented": each_line("    "),
    "indented by tabs": each_line("\t\t"),
    "quoted and indented": each_line(">    "),
    "CR LF": each_line(after="\r\n"),
    "CR CR LF": each_line(after="\r\r\n"),
    "CR": each_line(after="\r"),
    "spaces at the end": each_line(after="  \n"),
    "doubled spaces": PLAIN.replace(" ", "  "),
    "spaces for tabs": PLAIN.expandtabs(8),
    "four spaces for tabs": PLAIN.expandtabs(4),
    "no-break spaces": PLAIN.replace(" ", "\u00a0"),
    "capitals in bytes": "".join(
        line.upper() if line[2:4] == ": " else line for line in PLAIN.splitlines(keepends=True)
    ),
    "a web page": each_line("&gt; ").replace("<T", "&lt;T"),
    "in <pre>": f"<pre>{PLAIN}</pre>",
    "a forum's code": f"[CODE]{PLAIN.rstrip()}[/CODE]\n",
    "a forum's code with a language": f"[SPOILER][CODE=bash]{PLAIN.rstrip()}[/CODE][/SPOILER]\n",
    "in Markdown": f"```{PLAIN.rstrip()}```\n",
    "in lines that end with <br>": each_line(after="<br>\n"),
    "from grep -n": "".join(
        f"{number}:{line}\n" if line[2:3] == ":" and line[5:6] == "." else f"{line}\n"
        for number, line in enumerate(PLAIN.splitlines(), 1)
    ),
    "by a script for IOMMU groups": PLAIN.replace("00:1c.0", "IOMMU Group 12 00:1c.0").replace(
        "01:00.0", "IOMMU Group 3: 01:00.0"
    ),
    "in a list": PLAIN.replace("00:1c.0", "- 00:1c.0").replace("01:00.0", "* 01:00.0"),
    "in colours": PLAIN.replace("00:1c.0", "\x1b[01;31m\x1b[K00:1c.0\x1b[m\x1b[K"),
    "a console's log": each_line("[   12.345678] "),
    "with a thread": each_line("[   12.345678][    T1] "),
    "dmesg -T": each_line("[Sun Nov 29 23:12:01 2026] "),
    "a syslog": each_line("Nov  9 23:12:01 host1 kernel: [   12.345678] "),
    "dmesg -x": each_line("kern  :info  : [   12.345678] "),
    "dmesg -x, other level": each_line("kern  :notice: [   12.345678][    T1] "),
    "journalctl -o short-monotonic": each_line("[   12.345678] host1 kernel: "),
    "a journal": each_line("2026-11-29T23:12:01.123456+0100 host1 kernel: "),
    "with levels": each_line("<6>[   12.345678] "),
    "by a unit in the journal": each_line("Nov 29 23:12:01 host1 lspci[123]: "),
    "empty lines": each_line(after="\n\n"),
    "in a numbered list": numbered("{}. {}\n"),
    "from cat -n": numbered("{:6}\t{}\n"),
    "from less -N": numbered("{:7} {}\n"),
    "all lines from grep -n": numbered("{}:{}\n"),
    "with ids in front": PLAIN.replace("00:1c.0", "[8086:3b42] [R] 00:1c.0"),
    "with [R] in front": PLAIN.replace("01:00.0", "IOMMU Group 3: [R] 01:00.0"),
    "with narrow spaces": PLAIN.replace(" ", "\u202f"),
    "with typographic dashes": PLAIN.replace("-", "\u2013"),
    "with minus signs": PLAIN.replace("-", "\u2212"),
    "with entities": PLAIN.replace(" ", "&nbsp;").replace("[", "&#91;").replace("]", "&#x5D;"),
    "in <pre> with a class": f'<pre class="a b"><code>{PLAIN}</code></pre>',
    "with rows of bytes that mail folded": folded_bytes(),
    "with an introduction": f"Hello,\n\n00:1f.2 does not work. lspci says:\n\n{PLAIN}\n-- \nA. U. Thor\n",
    "a shell": f"root@host:~# lspci -vvnn; lspci -xxx\n{PLAIN}root@host:~# \n",
}


def told(text, encoding="utf-8"):
    return parse_dump(text.encode(encoding)).functions


@pytest.mark.parametrize("text", MANGLED.values(), ids=MANGLED)
def test_what_mail_and_logs_put_around_is_taken_away(text):
    assert told(text) == told(PLAIN)
    assert len(told(PLAIN)) == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1", "ascii"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_encoding_is_read(encoding, end):
    text = PLAIN.replace("\n", end)
    assert told(text, encoding) == told(PLAIN)
    assert told("é" + text, "latin-1") is not None


def test_addresses_that_count_up_are_no_line_numbers():
    text = "".join(f"{bus}:00.0 Ethernet controller [0200]: Intel [8086:1521]\n" for bus in range(10, 20))
    assert [raw.sbdf.bus for raw in told(text)] == list(range(0x10, 0x1A))


def test_ids_in_front_of_the_address_are_those_of_a_heading_without_ids():
    (raw,) = told("IOMMU Group 1: [8086:1901] [R] 00:01.0 PCI bridge: Intel Skylake\n")
    assert (raw.ids.vendor, raw.ids.device) == (0x8086, 0x1901)


@pytest.mark.parametrize(("left", "right"), [("&quot;", "&quot;"), ("\u201c", "\u201d")])
def test_quotation_marks_in_any_form_are_read(left, right):
    fields = ("SATA controller [0106]", "Intel [8086]", "ICH10 [3a22]")
    quoted = " ".join(f"{left}{field}{right}" for field in fields)
    (raw,) = told(f"00:1f.2 {quoted} -p01\n")
    assert (raw.ids.vendor, raw.ids.device) == (0x8086, 0x3A22)


def test_lines_that_mail_broke_are_joined():
    broken = PLAIN.replace(" 00 00 00\n", " 00 =\n00 00\n").replace("size=", "size=3D")
    assert told(broken) == told(PLAIN)


@pytest.mark.parametrize("width", [60, 66, 72, 76])
def test_lines_that_mail_folded_are_joined(width):
    folded = []
    for line in PLAIN.splitlines():
        text = line.expandtabs(8)
        while len(text) > width and " " in text[:width].strip():
            cut = text.rindex(" ", 0, width)
            folded.append(text[:cut])
            text = text[cut + 1 :]
        folded.append(text)
    assert folded != PLAIN.expandtabs(8).splitlines()
    assert told("\n".join(folded)) == told(PLAIN)


def test_a_line_has_its_number_and_its_indentation():
    found = list(lines_of(b"a\n\n>  \tb  \nc=\nd\ne"))
    assert [(line.number, line.indent, line.text) for line in found] == [
        (1, 0, "a"), (2, 0, ""), (3, 8, "b"), (4, 0, "cd"), (6, 0, "e"),
    ]  # fmt: skip


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_anything_is_read_without_an_error(data):
    for line in lines_of(data):
        assert line.number >= 1
        assert line.text == line.text.strip()
    parse_dump(data)
