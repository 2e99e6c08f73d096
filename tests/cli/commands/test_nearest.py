"""`history`, `explain` and `monitor -s` name the nearest function for a malformed or absent address."""

import pytest

from pcipt.cli.main import main, make_parser
from pcipt.daemon.control import protocol
from pcipt.errors import AddressError, NoSuchDeviceError
from tests.answers import answering
from tests.trees import add

NAMING = [["history"], ["explain"], ["monitor", "-s"]]
IDS = [words[0] for words in NAMING]
#  what was typed, what it may have been meant to be
SLIPS = [("02:00.9", "0000:02:00.0"), ("0000:2g:00.0", "0000:02:00.0"), ("xyz", None)]


@pytest.fixture
def machine(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:01.0")
    add(tmp_path, "pci0000:00/0000:02:00.0")
    return str(tmp_path)


def run(words, root, socket):
    module, parser = make_parser(words[0])
    args = parser.parse_args([*words[1:], "--socket", socket])
    args.root = root
    return module.run(args)


@pytest.mark.parametrize("words", NAMING, ids=IDS)
@pytest.mark.parametrize(("typed", "meant"), SLIPS)
def test_a_slip_is_told_with_the_nearest_function(words, typed, meant, machine, tmp_path):
    with pytest.raises(AddressError) as caught:
        run([*words, typed], machine, str(tmp_path / "none"))
    assert caught.value.nearest == ((meant,) if meant else ())


@pytest.mark.parametrize("words", NAMING, ids=IDS)
def test_a_slip_is_told_where_no_machine_can_be_read(words, tmp_path):
    with pytest.raises(AddressError) as caught:
        run([*words, "02:00.9"], str(tmp_path / "missing"), str(tmp_path / "none"))
    assert caught.value.nearest == ()


@pytest.mark.parametrize("command", ["history", "explain"])
def test_what_the_daemon_does_not_have_is_told_with_the_nearest(command, machine, tmp_path):
    absent = protocol.error("NoSuchDevice", {"sbdf": "0000:02:00.7", "nearest": ["0000:02:00.0"]})
    there = answering(tmp_path / "control", {command.title(): absent})
    with there as control, pytest.raises(NoSuchDeviceError, match=r"did you mean 0000:02:00\.0\?"):
        run([command, "02:00.7"], machine, control)


def test_a_monitor_says_that_it_waits_for_a_function_that_is_not_there(tmp_path, capsys):
    start = {"version": 1, "kind": "start", "nearest": ["0000:02:00.0"]}
    with answering(tmp_path / "control", {"Monitor": [start]}) as control:
        assert main(["monitor", "-s", "02:00.7", "--socket", control]) == 3  # the daemon ends
    said, _ = capsys.readouterr().err.split("\n", 1)
    assert said.startswith("pcipt: no function 02:00.7 on this machine (did you mean 0000:02:00.0?); ")
    assert said.endswith("; pcipt waits until it appears")
