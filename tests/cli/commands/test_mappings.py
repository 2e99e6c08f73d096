import json

import pytest

from pcipt.cli.commands.mappings import NONE, legend_from_answer
from pcipt.cli.main import main
from pcipt.daemon.control.status import NO_MAP
from tests.answers import ANSWERS, MAPPINGS, answering

SINCE = "2026-11-22 19:11:32 UTC"


def test_the_table_and_json(tmp_path, capsys):
    with answering(tmp_path / "control", ANSWERS) as control:
        assert main(["mappings", "--socket", control]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "RANGE                          SIZE  SBDF          BAR  BY            SINCE",
            f"0xfe040000-0xfe05ffff          128K  0000:02:00.0  0    xen           {SINCE}",
            f"0xfe800000-0xfe803fff           16K  0000:02:00.0  ROM  us, doubtful  {SINCE}",
            f"0x383fe0000000-0x383fefffffff  256M  0000:03:00.0  2    us            {SINCE}",
            f"0xfd000000-0xfd000fff            4K  0000:05:00.0  0    stale         {SINCE}",
        ]
        assert main(["mappings", "--no-legend", "--socket", control]) == 0
        assert "RANGE" not in capsys.readouterr().out
        assert main(["mappings", "--json", "--socket", control]) == 0
        assert json.loads(capsys.readouterr().out) == MAPPINGS


def test_the_closing_line_fits_what_stands_above_it():
    assert "UTC" not in legend_from_answer(MAPPINGS, 80)  # ages have no time zone
    assert "times are UTC" in legend_from_answer(MAPPINGS, 160)
    assert "times are UTC" in legend_from_answer(MAPPINGS, None)


def test_the_closing_line_names_controllers_whose_bars_hold_others():
    inside = [
        {**each, "segments": ["10000", "10001"] if each["bar"] == 2 else []} for each in MAPPINGS["mappings"]
    ]
    text = legend_from_answer({**MAPPINGS, "mappings": inside}, None)
    assert "BARs of segment 10000, 10001 lie inside those of 0000:03:00.0 (VMD)." in text
    assert "VMD" not in legend_from_answer(MAPPINGS, None)


@pytest.mark.parametrize("options", [(), ("--no-legend",)])
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dom0": "pv", "why": NO_MAP}, NO_MAP),
        ({"dom0": "pvh", "why": None}, NONE),
        ({"dom0": "pv"}, NONE),  # the daemon is older
    ],
)
def test_that_there_are_no_mappings_is_said_in_a_pipe_too(tmp_path, capsys, more, said, options):
    with answering(tmp_path / "control", {"Mappings": {"version": 1, "mappings": [], **more}}) as control:
        assert main(["mappings", *options, "--socket", control]) == 0
    captured = capsys.readouterr()
    answer = f"{said}\n"
    expected = (answer, "") if said == NO_MAP else ("", f"note: {answer}")
    assert (captured.out, captured.err) == expected
