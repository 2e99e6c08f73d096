"""The man pages: formatters have no complaint, and they name every command, option, key and exit code."""

import re
import subprocess
from pathlib import Path

import pytest

from pcipt.cli.main import COMMANDS, EXIT_CODES, make_parser
from pcipt.daemon.setting_keys import KEYS
from tests.packaging.described import describe

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ("pcipt.1", "pcipt.toml.5", "pcipt-daemon.8")


def source_of(name):
    page = REPOSITORY / "docs" / "man" / name
    return page.read_text() if page.exists() else describe(name)


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    place = tmp_path_factory.mktemp("man")
    for name in PAGES:
        (place / name).write_text(source_of(name))
    return place


@pytest.fixture(scope="session")
def plain():
    """Give the pages' text without the formatter's words and escapes."""

    def make(name):
        text = re.sub(r"\\f[BIR]", "", source_of(name))
        for escape, char in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\&", ""), (r"\e", "\\")):
            text = text.replace(escape, char)
        return text

    return {name: make(name) for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_no_complaint(pages, tool, name):
    command = [tool("mandoc"), "-Tlint", "-Wstyle", name]
    done = subprocess.run(command, cwd=pages, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("width", ["60", "80", "160"])
@pytest.mark.parametrize("name", PAGES)
def test_man_warns_of_nothing(pages, tool, name, width):
    command = [tool("man", "man-db"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", name]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": width, "MANROFFSEQ": "t"}
    done = subprocess.run(command, cwd=pages, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_told(plain, name):
    _, parser = make_parser(name)
    section = re.search(
        rf'\.SS "pcipt {name}"\n(.*?)(?=\.SS "pcipt (?!{name} )|\.SH)', plain["pcipt.1"], re.DOTALL
    )[1]
    for action in parser._actions:
        for option in action.option_strings:
            assert option in ("-h", "--help") or re.search(rf"^(.*, )?{option}\b", section, re.MULTILINE), (
                option
            )


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_setting_is_told_with_its_default(plain, key):
    default = {True: "true", False: "false"}.get(key.default, key.default)
    default = f'"{default}"' if isinstance(key.default, str) else default
    entry = plain["pcipt.toml.5"].split(f".TP\n{key.name}\n")[1].split(".TP\n")[0]
    default = "[]" if default == () else default
    assert f"Default: {default}." in entry


def test_every_exit_code_is_told(plain):
    table = re.search(r"\.TS\n.*?\n(\d.*?)\.TE", plain["pcipt.1"], re.DOTALL)[1]
    told = dict(row.split("|") for row in table.splitlines())
    codes = {str(code) for _, code in EXIT_CODES}
    assert set(told) == codes | {"0", "4"}
    for code in codes:
        assert told[code], code
