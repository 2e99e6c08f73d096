import json
import os
import tracemalloc

import pytest

import pcipt.daemon.document
from pcipt.daemon.document import FORMATS, LINE_LIMIT, SIZE_LIMIT, STEPS_LONG, Document
from pcipt.daemon.folder import Folder


@pytest.fixture
def document(tmp_path):
    return Document(Folder(str(tmp_path)), "ledger", "ledger")


def test_what_was_saved_is_loaded(document):
    assert document.load() == (None, None)
    document.save({"a": [1, "é"]})
    document.save({"a": [2, "é"]})
    assert document.load() == ({"a": [2, "é"]}, None)


def damaged(path, change):
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "damaged"),  # cut short
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"\xff\xfe" * 10), "damaged"),
        (lambda path: path.write_text("[" * 100_000), "damaged"),  # nested beyond any stack
        (lambda path: path.write_text("[]"), "damaged"),
        (lambda path: damaged(path, lambda w: w["content"].update(a=2)), "checksum"),
        (lambda path: damaged(path, lambda w: w.update(format=FORMATS[-1] + 1)), f"format {FORMATS[-1] + 1}"),
    ],
)
def test_a_damaged_document_is_kept_aside_and_said(document, tmp_path, spoil, words):
    document.save({"a": 1})
    spoil(tmp_path / "ledger")
    content, finding = document.load()
    assert content is None
    assert finding.code == "ledger-damaged"
    assert words in finding.text
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.damaged-1"]
    assert document.load() == (None, None)


def test_a_second_damaged_document_does_not_replace_the_first(document, tmp_path):
    for _ in range(2):
        (tmp_path / "ledger").write_text("x")
        document.load()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.damaged-1", "ledger.damaged-2"]


def test_a_full_disk_leaves_the_old_document(document, tmp_path, monkeypatch):
    document.save({"a": 1})

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        document.save({"a": 2})
    monkeypatch.undo()
    assert document.load() == ({"a": 1}, None)
    assert [p.name for p in tmp_path.iterdir()] == ["ledger"]


def again(tmp_path):
    document = Document(Folder(str(tmp_path)), "ledger", "ledger")
    document.load()
    return document


def steps_of(document):
    """Return the steps of a document and the finding."""
    steps = []
    finding = document.load_steps(steps.append)
    return steps, finding


def test_steps_follow_the_document_until_it_is_saved_again(document, tmp_path):
    document.save({"a": 1})
    document.append(["one", {"two": 2}])
    document.append(["three"])
    assert steps_of(again(tmp_path)) == (["one", {"two": 2}, "three"], None)
    document.save({"a": 2})
    assert steps_of(again(tmp_path)) == ([], None)
    document.append(["four"])
    assert steps_of(again(tmp_path)) == (["four"], None)
    document.close()


def test_after_a_restart_steps_are_appended_to_those_that_are_there(document, tmp_path):
    document.save({"a": 1})
    document.append(["one"])
    document.close()
    after = again(tmp_path)
    steps_of(after)
    after.append(["two"])
    after.close()
    assert steps_of(again(tmp_path)) == (["one", "two"], None)


def test_steps_of_another_document_do_not_count(document, tmp_path):
    document.save({"a": 1})
    document.append(["one"])
    document.close()
    Document(Folder(str(tmp_path)), "other", "ledger").save({"a": 2})
    (tmp_path / "other").rename(tmp_path / "ledger")  # killed before the steps were taken away
    assert steps_of(again(tmp_path)) == ([], None)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_step_cut_short_was_never_taken(document, tmp_path, cut):
    document.save({"a": 1})
    document.append(["one"])
    document.append(["a longer step than the one before it"])
    document.close()
    file = tmp_path / "ledger.steps"
    file.write_bytes(file.read_bytes()[:-cut])
    steps, finding = steps_of(again(tmp_path))
    assert steps == (["one"] if cut < 57 else [])
    assert finding is None


def test_damage_in_the_middle_is_kept_aside_and_said(document, tmp_path):
    document.save({"a": 1})
    document.append(["one", "two", "three"])
    document.close()
    file = tmp_path / "ledger.steps"
    file.write_bytes(file.read_bytes().replace(b'"two"', b'"twe"'))
    steps, finding = steps_of(again(tmp_path))
    assert steps == ["one"]
    assert "line 3 is damaged" in finding.text
    assert (tmp_path / "ledger.steps.damaged-1").exists()


def test_what_a_full_disk_left_of_a_step_is_cut_off_again(document, tmp_path, monkeypatch):
    document.save({"a": 1})
    document.append(["one"])

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space"):
        document.append(["lost"])
    monkeypatch.undo()
    document.append(["two"])
    document.close()
    assert steps_of(again(tmp_path)) == (["one", "two"], None)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_damaged_first_line_does_not_hide_the_steps(document, tmp_path, steps):
    """It names the document, so nobody knows whether the steps belong to this one."""
    document.save({"a": 1})
    document.append([f"step {number}" for number in range(steps)])
    document.close()
    file = tmp_path / "ledger.steps"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    after = again(tmp_path)
    found, finding = steps_of(after)
    assert found == []
    assert "line 1 is damaged" in finding.text
    assert (tmp_path / "ledger.steps.damaged-1").exists()
    after.append(["new"])
    after.close()
    assert steps_of(again(tmp_path)) == (["new"], None)


def test_a_document_over_its_limit_is_said_and_kept(document, tmp_path, monkeypatch):
    document.save({"a": "x" * 5000})
    monkeypatch.setattr(pcipt.daemon.document, "SIZE_LIMIT", 1000)
    content, finding = again_without_loading(tmp_path).load()
    assert content is None
    assert "it is longer than 1000 bytes" in finding.text
    assert len((tmp_path / "ledger.damaged-1").read_bytes()) > 5000  # nothing was cut


def again_without_loading(tmp_path):
    return Document(Folder(str(tmp_path)), "ledger", "ledger")


def test_what_could_not_be_loaded_again_is_not_saved(document):
    document.save({"a": 1})
    with pytest.raises(OSError, match="too large"):
        document.save({"a": "x" * SIZE_LIMIT})
    assert document.load() == ({"a": 1}, None)


def test_steps_over_the_limit_are_said_and_none_is_lost(document, tmp_path, monkeypatch):
    document.save({"a": 1})
    document.append([f"step {number}" for number in range(100)])
    document.close()
    monkeypatch.setattr(pcipt.daemon.document, "STEPS_READ", 1000)
    steps, finding = steps_of(again(tmp_path))
    assert steps == [f"step {number}" for number in range(len(steps))]
    assert 20 < len(steps) < 100
    assert "is behind the first 1000 bytes, and nothing from there on is used" in finding.text
    assert b"step 99" in (tmp_path / "ledger.steps.damaged-1").read_bytes()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_endless_line_is_said_and_held_by_nobody(document, tmp_path, end):
    document.save({"a": 1})
    document.append(["one"])
    document.close()
    with open(tmp_path / "ledger.steps", "ab") as file:
        file.write(b"x" * (LINE_LIMIT * 20) + end)
    after = again(tmp_path)
    tracemalloc.start()
    steps, finding = steps_of(after)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert steps == ["one"]
    assert "line 3 is damaged" in finding.text
    assert peak < LINE_LIMIT * 5


def test_steps_are_read_one_by_one(document, tmp_path):
    """A megabyte of them takes no megabyte of memory."""
    document.save({"a": 1})
    document.append([f"{number:0500}" for number in range(4000)])
    document.close()
    after = again(tmp_path)
    count = []
    tracemalloc.start()
    assert after.load_steps(lambda step: count.append(len(step))) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(count), set(count)) == (4000, {500})
    assert peak < 500_000


def test_steps_become_long_and_are_refused_before_they_fill_the_disk(document, monkeypatch):
    document.save({"a": 1})
    assert not document.is_long
    while not document.is_long:
        document.append(["x" * 100_000])
    monkeypatch.setattr(pcipt.daemon.document, "STEPS_LIMIT", STEPS_LONG)
    with pytest.raises(OSError, match="too large"):
        document.append(["x"])
    document.save({"a": 2})
    assert not document.is_long
    document.append(["x"])
    document.close()
