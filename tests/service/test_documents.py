import json
import os

import pytest

from pcipt.service.documents import FORMAT, Document


@pytest.fixture
def document(tmp_path):
    return Document(str(tmp_path / "ledger"), "ledger")


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
        (lambda path: damaged(path, lambda w: w.update(format=FORMAT + 1)), f"format {FORMAT + 1}"),
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
