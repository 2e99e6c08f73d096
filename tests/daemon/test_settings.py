import os

import pytest

from pcipt.daemon.setting_keys import KEYS, toml_from_value
from pcipt.daemon.settings import Settings, parse_settings, read_settings
from pcipt.errors import InputError
from pcipt.remap.actions import Action

WORDS = {kind.word for kind in Action.__args__}


def written(tmp_path, data):
    path = tmp_path / "pcipt.toml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def test_no_file_means_the_defaults(tmp_path):
    settings = read_settings(str(tmp_path / "none"), required=False)
    assert settings == Settings()
    assert all(settings.performs(word) for word in WORDS)


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(InputError, match="no such settings file"):
        read_settings(str(tmp_path / "none"), required=True)


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_switch_switches_its_own_kind_off(tmp_path, word):
    settings = read_settings(written(tmp_path, f"[actions]\n{word} = false"), required=True)
    assert {other for other in WORDS if not settings.performs(other)} == {word}


def test_observe_performs_nothing():
    settings = parse_settings(b'mode = "observe"\n[actions]\nmap-mmio = true', "file")
    assert not any(settings.performs(word) for word in WORDS)


#  key, another value than its default
OTHERS = {
    "mode": "observe",
    **{f"actions.{word}": False for word in WORDS},
    "watch.source": "none",
    "watch.settle-ms": 200,
    "watch.owners-s": 600,
    "watch.list-s": 0,
    "watch.faults-s": 0,
    "reserved.restore_on_fault": True,
    "hotplug.probe": False,
    "hotplug.below": ("00_1c.0", "00_1d.0-00_00.0"),
    "hotplug.action": "tell",
    "log.level": "debug",
    "metrics.textfile": "/var/lib/node-exporter/pcipt.prom",
}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_key_is_read(key):
    table, _, inner = key.name.rpartition(".")
    head = f"[{table}]\n" if table else ""
    text = f"{head}{inner} = {toml_from_value(OTHERS[key.name])}"
    assert parse_settings(text.encode(), "file").value_of(key.name) == OTHERS[key.name]
    assert Settings().value_of(key.name) == key.default != OTHERS[key.name]
    assert key.accepts.fits(key.default)


#  the text of the file, what the one line says; the line is that on which the statement begins
WRONG = [
    # Python reads and writes decimal numbers up to a bound only, hexadecimal ones it reads without
    ("mode = 'observe'\n[watch]\nsettle-ms = " + 5000 * "9", "line 3: a number with too many digits"),
    (
        "[watch]\nsettle-ms = 0x" + 6000 * "f",
        "line 2: watch.settle-ms is a number with too many digits; expected",
    ),
    ("mode = [0x" + 6000 * "f" + "]", "line 1: mode is a number with too many digits; expected one of"),
    (
        "\ufeffmode = 'observe'",
        "line 1: begins with a byte order mark; save the file as UTF-8 without this mark",
    ),
    ("mod = 1", "line 1: unknown key mod; did you mean mode?"),
    ('"" = 1', "line 1: unknown key ''; expected one of mode"),
    (
        "zzz = 1",
        "line 1: unknown key zzz; expected one of mode, actions, hotplug, log, metrics, passthrough",
    ),
    ("# mode\n\nmode = 'force'", "line 3: mode is 'force'; expected one of enforce, observe"),
    ("actions = 1", "line 1: actions is no table; expected [actions]"),
    (
        "[actions]\nadd_device = true",
        "line 2: unknown key actions.add_device; did you mean actions.add-device?",
    ),
    ("[actions]\nadd-device = 1", "line 2: actions.add-device is 1; expected true or false"),
    ("[watch]\nsource = 'ebpf'", "line 2: watch.source is 'ebpf'; expected one of kprobe, xentrace, none"),
    ("[watch]\nsettle-ms = 0", "line 2: watch.settle-ms is 0; expected a number from 1 to 10000"),
    ("[watch]\nsettle-ms = true", "line 2: watch.settle-ms is True; expected a number"),
    ("[watch]\nsettle-ms = 50.0", "line 2: watch.settle-ms is 50.0; expected a number"),
    ("watch = 1", "line 1: watch is no table"),
    ("[[watch]]\nsource = 'none'", "line 1: watch is no table"),
    ("[wacth]\nsource = 'none'", "line 1: unknown key wacth; did you mean watch?"),
    ("settle-ms = 5", "line 1: unknown key settle-ms; did you mean watch.settle-ms?"),  # in the wrong table
    ("[actions.map-mmio]\non = true", "line 1: actions.map-mmio is {'on': True}; expected true or false"),
    ("[metrics]\ntextfile = 'x.prom'", "line 2: metrics.textfile is 'x.prom'; expected an absolute path"),
    (
        "[metrics]\ntextfile = '/x'",
        "line 2: metrics.textfile is '/x'; expected an absolute path that ends in .prom",
    ),
    ("[log]\nlevel = 'loud'", "line 2: log.level is 'loud'; expected one of debug, info, warning, error"),
    # wherever TOML lets a key stand
    ("watch.sorce = 'none'", "line 1: unknown key watch.sorce; did you mean watch.source?"),
    ("\nwatch = { sorce = 'none' }", "line 2: unknown key watch.sorce; did you mean watch.source?"),
    ('mode = "enforce"\n["watch"]\n"sorce" = 1', "line 3: unknown key watch.sorce"),
    ("x = '''\nmode = 1\n'''", "line 1: unknown key x"),
    ("mode = '''\nenforce\nmode = 1'''", "line 1: mode is 'enforce\\nmode = 1'; expected"),
    ("mode = [\n 1,\n 2,\n]", "line 1: mode is [1, 2]"),
    ("# a\u2028b\x85c\nzzz = 1", "line 2: unknown key zzz"),  # only a newline ends a line
    ("zzz = [\n" + "  1, # zzz\n" * 4000 + "]", "line 1: unknown key zzz"),
    (
        "# zzz\n" * 9000 + "zzz = 1",
        "line 9001: unknown key zzz",
    ),  # in milliseconds: the daemon reads this too
    ('[metrics]\ntextfile = "/x\\u001b.prom"', "line 2: metrics.textfile is '/x\\x1b.prom'; expected"),
    ('"mo\\u0000de" = 1', "line 1: unknown key mo\\x00de; did you mean mode?"),
    ("mode = '" + "x" * 1000 + "'", "line 1: mode is 'xxx"),
    # what is no TOML
    ("x\nmode = 1", "line 1, column 2: Expected '=' after a key"),
    ("mode = 'observe'\nmode = 'enforce'", "line 2"),
    ("mode = '", "line 1"),
    (b"mode = 'enforce'\n# \xff", "line 2: not UTF-8"),
    ("mode = " + "[" * 5000, "nested too deeply"),
    ("#" * 70_000, "is longer than 65536 bytes"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_one_clear_line(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_settings(path, required=True)
    assert f"{path}: {words}" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_what_is_no_file_does_not_hold_it_up(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/null"):
        with pytest.raises(InputError, match=r"is no regular file|Is a directory"):
            read_settings(str(path), required=False)


def test_policed_ports_are_paths():
    settings = parse_settings(
        b'[hotplug]\nbelow = ["00_1c.0", "00_1d.0-00_00.0"]\naction = "quarantine"', "file"
    )
    assert list(map(str, settings.ports)) == ["00_1c.0", "00_1d.0-00_00.0"]
    assert Settings().ports == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('below = "00_1c.0"', "hotplug.below is '00_1c.0'; expected a list of PCI paths"),
        ('below = ["00:1c.0"]', "hotplug.below is ['00:1c.0']; expected a list of PCI paths"),
        ('below = ["00_1c.0", "00_1c.0"]', "expected a list of PCI paths"),
        ('below = ["10000_00_1c.0"]', "expected a list of PCI paths"),
        ("below = [7]", "expected a list of PCI paths"),
        ('action = "nothing"', "hotplug.action is 'nothing'; expected one of quarantine, tell"),
        ('blow = ["00_1c.0"]', "did you mean hotplug.below?"),
    ],
)
def test_a_wrong_policy_of_ports_is_one_line_that_names_it(line, words):
    with pytest.raises(InputError) as caught:
        parse_settings(f"[hotplug]\n{line}\n".encode(), "file")
    assert "line 2: " in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
