"""Each kind of message has an id and an entry in the catalog, and each message that is logged has a kind."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pcipt.daemon.telling.messages import MESSAGE_IDS

ROOT = Path(__file__).resolve().parents[3]
CATALOG = ROOT / "systemd" / "pcipt.catalog"
LEVELS = {"debug", "info", "warning", "error"}


def calls():
    """Find each `….log.info("…", …)` of the service: where, and its keywords."""
    for path in sorted((ROOT / "pcipt" / "daemon").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            if (node.func.attr in LEVELS and owner.endswith("log")) or ast.unparse(node.func) == "say":
                yield f"{path.name}:{node.lineno}", {k.arg: k.value for k in node.keywords if k.arg}


CALLS = dict(calls())


@pytest.mark.parametrize("where", CALLS)
def test_what_is_logged_has_a_kind_with_an_id(where):
    kind = CALLS[where].get("kind")
    assert isinstance(kind, ast.Constant), where
    assert kind.value in MESSAGE_IDS


def test_every_kind_is_used():
    used = {keywords["kind"].value for keywords in CALLS.values() if "kind" in keywords}
    assert used | {"action", "limit"} == set(MESSAGE_IDS)  # these two are logged by other words


def test_ids_are_128_bits_and_no_two_alike():
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in MESSAGE_IDS.values())


def test_the_catalog_explains_each_kind_and_no_other():
    text = CATALOG.read_text(encoding="utf-8")
    entries = re.findall(
        r"^-- ([0-9a-f]{32})\nSubject: .+\nDefined-By: pcipt\n(?:[A-Z][a-z-]+: .+\n)*\n\S", text, re.MULTILINE
    )
    assert sorted(entries) == sorted(MESSAGE_IDS.values())
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="no journalctl here")
def test_systemd_takes_the_catalog(tmp_path):
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, place)
    base = ["journalctl", f"--root={tmp_path}"]
    done = subprocess.run([*base, "--update-catalog"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = subprocess.run([*base, "--list-catalog"], capture_output=True, text=True, check=True)
    assert {line.split(" ")[0] for line in told.stdout.splitlines()} == set(MESSAGE_IDS.values())
