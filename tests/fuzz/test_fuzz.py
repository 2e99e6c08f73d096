"""Each target on some inputs, always the same ones; `make fuzz TIME=60` is led by coverage and goes on."""

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import native
from tests.fuzz.corpus import ROOT
from tests.fuzz.mutate import inputs
from tests.fuzz.targets import TARGETS, Target, source_of_messages

INPUTS = int(os.environ.get("PCIPT_FUZZ", "120"))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_target(name):
    target = TARGETS[name]
    corpus = target.corpus()
    assert corpus
    for data in islice(inputs(corpus, 1), len(corpus) + INPUTS):
        target.try_input(data)
    if name == "uevents":
        source_of_messages()[0].close()
        source_of_messages.cache_clear()


@pytest.mark.parametrize("name", ["frames", "settings", "start-info", "config-space"])
def test_good_inputs_are_good(name):
    """A corpus that a target refuses would reach nothing behind the first check."""
    for data in TARGETS[name].corpus():
        TARGETS[name].run(data)


def test_the_c_decoders_under_sanitizers(tmp_path):
    assert "ASan and UBSan" in native.run(0.5, 1, str(tmp_path))


def test_what_breaks_a_target_is_kept(tmp_path):
    def fragile(data):
        if b"9999" in data:
            raise KeyError(data)

    target = Target("fragile", lambda: [b"a = 1"], fragile)
    with pytest.raises(KeyError):
        command.blindly(target, 60, 1, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert b"9999" in kept.read_bytes()


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (make fuzz-tools)")
def test_atheris_sees_what_an_input_covers(tmp_path):
    """It only does if pcipt is imported while atheris watches."""
    command = [sys.executable, "-m", "tests.fuzz", "--led", "settings", "2", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Instrumenting pcipt.daemon.settings" in done.stderr
    assert "no interesting inputs" not in done.stderr


def test_inputs_are_the_same_each_time():
    corpus = TARGETS["settings"].corpus()
    first, again = (list(islice(inputs(corpus, 5), 200)) for _ in range(2))
    assert first == again
    assert len(set(first)) > 100
