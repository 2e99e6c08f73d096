import pytest

from pcipt.cli.main import main


def test_the_parts_are_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pvh", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(part in said for part in ("startinfo", "layout", "tables", "check"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["pvh"],
        ["pvh", "nothing"],
        ["pvh", "startinfo"],
        ["pvh", "startinfo", "FILE"],  # without --at
        ["pvh", "startinfo", "FILE", "--at", "no-number"],
        ["pvh", "startinfo", "FILE", "--at", "-1"],
        ["pvh", "startinfo", "FILE", "--at", "0x10000000000000000"],  # 65 bits
        ["pvh", "startinfo", "ONE", "TWO", "--at", "0"],  # two files, one address
        ["pvh", "tables", "--domain", "guest", "-o", "DIR"],  # how many vCPUs?
        ["pvh", "tables", "--domain", "guest", "--vcpus", "0", "-o", "DIR"],
        ["pvh", "tables", "--domain", "guest", "--vcpus", "4097", "-o", "DIR"],
        ["pvh", "tables", "--domain", "moon", "--vcpus", "1", "-o", "DIR"],
        ["pvh", "tables", "--domain", "hardware", "--vcpus", "1", "--no-lapic", "-o", "DIR"],
        ["pvh", "tables", "--domain", "hardware", "--vcpus", "1", "--function", "00:03.0", "-o", "DIR"],
        ["pvh", "tables", "--domain", "guest", "--vcpus", "1", "--no-lapic", "--io-apic", "-o", "DIR"],
        ["pvh", "check", "--root", "A", "--tables", "B"],
    ],
)
def test_wrong_usage_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("pcipt pvh")
    assert said.endswith(" --help` explains it\n")
    assert said.count("\n") == 1
