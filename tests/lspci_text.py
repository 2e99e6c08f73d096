"""What `lspci -Dn -vvv` prints, taken apart: a second opinion about every function."""

import re
import subprocess

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

HEAD = re.compile(
    r"([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) ([0-9a-f]{4}): ([0-9a-f]{4}):([0-9a-f]{4})(.*)"
)
REVISION = re.compile(r" \(rev ([0-9a-f]{2})\)")
REGION = re.compile(r"\tRegion (\d): (Memory|I/O ports) at ([0-9a-f]+)(.*)")
ROM = re.compile(r"\tExpansion ROM at ([0-9a-f]+)(.*)")
BUS = re.compile(r"\tBus: primary=([0-9a-f]{2}), secondary=([0-9a-f]{2}), subordinate=([0-9a-f]{2})")
WINDOW = re.compile(r"\t(I/O|Memory|Prefetchable memory) behind bridge: ([0-9a-f]+)-([0-9a-f]+)(.*)")
CAPABILITY = re.compile(r"\tCapabilities: \[([0-9a-f]+)(?: v\d+)?\](.*)")
RESIZED = re.compile(r"\t\tBAR (\d): current size: (\d+)([KMGT]?)B")
SIZE = re.compile(r"\[size=(\d+)([KMGT]?)\]")
IDE = 0x0101
KINDS = {"I/O": "io", "Memory": "memory", "Prefetchable memory": "prefetchable"}


def run(*arguments):
    command = ["lspci", *arguments, "-Dn", "-vvv"]
    return parse(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def on_tree(root):
    return run("-A", "linux-sysfs", "-O", f"sysfs.path={root}/sys/bus/pci")


def on_dump(path):
    return run("-F", str(path))


def parse(text):
    found = {}
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and (head := HEAD.fullmatch(lines[0])):
            found[head[1]] = function(head, lines[1:])
    return found


def function(head, lines):
    revision = REVISION.search(head[5])
    seen = {
        "class": head[2],
        "vendor": head[3],
        "device": head[4],
        "revision": revision[1] if revision else "00",
        "bars": {},
        "buses": None,
        "windows": set(),
        "capabilities": [],
        "resized": {},
    }
    section = ""
    for line in lines:
        if matched := REGION.match(line):
            seen["bars"][int(matched[1])] = (int(matched[3], 16), size(matched[4]), matched[2], matched[4])
        elif matched := ROM.match(line):
            seen["bars"][6] = (int(matched[1], 16), size(matched[2]), "ROM", matched[2])
        elif matched := BUS.match(line):
            seen["buses"] = tuple(int(number, 16) for number in matched.groups())
        elif matched := WINDOW.match(line):
            seen["windows"].add((KINDS[matched[1]], int(matched[2], 16), int(matched[3], 16), matched[4]))
        elif matched := CAPABILITY.match(line):
            seen["capabilities"].append(int(matched[1], 16))
            section = matched[2]
        elif (matched := RESIZED.match(line)) and "Virtual" not in section:
            seen["resized"][int(matched[1])] = int(matched[2]) * UNITS[matched[3]]
    return seen


def size(text):
    matched = SIZE.search(text)
    return int(matched[1]) * UNITS[matched[2]] if matched else None


def compare(function, theirs, *, live):
    """Assert that our view of a function and lspci's agree; what differs on purpose stands here.

    - A ROM's place: lspci shows Linux's, we show the register's. A ROM without a size is not shown by lspci.
    - I/O ports 3f6 and 376 of an IDE controller: lspci clears the two low bits and knows no size of 1. Such a
      controller in compatibility mode ignores BARs 0-3, which lspci does not tell.
    - A closed window: lspci -vvv shows base above limit, for us it is absent.
    - From sysfs (`live`) lspci has sizes, and misreads the prefetchable flag of old kernels (another bit).
    - Of a dump lspci -F tells no sizes but those of the Resizable BAR structure, which it shows with that
      structure. We take those that stand in the dump's words, and the fixed ports of an IDE controller.
    """
    ids = function.ids
    ours = (
        f"{ids.class_code >> 8:04x}",
        f"{ids.vendor:04x}",
        f"{ids.device:04x}",
        f"{ids.revision or 0:02x}",
    )
    assert ours == (theirs["class"], theirs["vendor"], theirs["device"], theirs["revision"])
    bars = {bar.index: bar for bar in function.bars if bar.index != 6}
    assert set(bars) == set(theirs["bars"]) - {6}
    for index, bar in bars.items():
        address, length, kind, more = theirs["bars"][index]
        assert (bar.kind.value == "io") == (kind == "I/O ports")
        if bar.kind.value == "io":
            assert bar.address & ~3 == address or (not live and ids.class_code >> 8 == IDE)
        else:
            assert bar.address == address
            assert (bar.kind.value == "mem64") == ("64-bit" in more)
            assert live or bar.prefetchable == ("non-prefetchable" not in more)
        known = length or (1 if live else theirs["resized"].get(index))
        assert bar.size == known or (known is None and not live)
        assert ids.class_code >> 8 == IDE or bar.decoding == ("[disabled]" not in more)
    bridge = function.bridge
    assert theirs["buses"] == ((bridge.primary, bridge.secondary, bridge.subordinate) if bridge else None)
    windows = {(w.kind.value, w.base, w.limit) for w in bridge.windows} if bridge else set()
    assert windows == {(kind, base, limit) for kind, base, limit, _ in theirs["windows"] if base <= limit}
    assert [capability.offset for capability in function.capabilities] == theirs["capabilities"]
