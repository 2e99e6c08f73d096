import json
import os

import pytest

from pcipt.daemon.document import FORMATS, Document
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


def test_steps_follow_the_document_until_it_is_saved_again(document, tmp_path):
    document.save({"a": 1})
    document.append(["one", {"two": 2}])
    document.append(["three"])
    assert again(tmp_path).load_steps() == (["one", {"two": 2}, "three"], None)
    document.save({"a": 2})
    assert again(tmp_path).load_steps() == ([], None)
    document.append(["four"])
    assert again(tmp_path).load_steps() == (["four"], None)
    document.close()


def test_after_a_restart_steps_are_appended_to_those_that_are_there(document, tmp_path):
    document.save({"a": 1})
    document.append(["one"])
    document.close()
    after = again(tmp_path)
    after.load_steps()
    after.append(["two"])
    after.close()
    assert again(tmp_path).load_steps() == (["one", "two"], None)


def test_steps_of_another_document_do_not_count(document, tmp_path):
    document.save({"a": 1})
    document.append(["one"])
    document.close()
    Document(Folder(str(tmp_path)), "other", "ledger").save({"a": 2})
    (tmp_path / "other").rename(tmp_path / "ledger")  # killed before the steps were taken away
    assert again(tmp_path).load_steps() == ([], None)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_step_cut_short_was_never_taken(document, tmp_path, cut):
    document.save({"a": 1})
    document.append(["one"])
    document.append(["a longer step than the one before it"])
    document.close()
    file = tmp_path / "ledger.steps"
    file.write_bytes(file.read_bytes()[:-cut])
    steps, finding = again(tmp_path).load_steps()
    assert steps == (["one"] if cut < 57 else [])
    assert finding is None


def test_damage_in_the_middle_is_kept_aside_and_said(document, tmp_path):
    document.save({"a": 1})
    document.append(["one", "two", "three"])
    document.close()
    file = tmp_path / "ledger.steps"
    file.write_bytes(file.read_bytes().replace(b'"two"', b'"twe"'))
    steps, finding = again(tmp_path).load_steps()
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
    assert again(tmp_path).load_steps() == (["one", "two"], None)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_damaged_first_line_does_not_hide_the_steps(document, tmp_path, steps):
    """It names the document, so nobody knows whether the steps belong to this one."""
    document.save({"a": 1})
    document.append([f"step {number}" for number in range(steps)])
    document.close()
    file = tmp_path / "ledger.steps"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    after = again(tmp_path)
    found, finding = after.load_steps()
    assert found == []
    assert "line 1 is damaged" in finding.text
    assert (tmp_path / "ledger.steps.damaged-1").exists()
    after.append(["new"])
    after.close()
    assert again(tmp_path).load_steps() == (["new"], None)
