"""The artifact store: complete or absent, verified byte by byte, never half-written."""

import json
import os

import pytest

from retain_core.errors import InputError
from retain_core.store import Store, key_of


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "artifacts")
    store.prepare()
    return store


def make(store, key="abc", text="hello", **inputs):
    with store.create("thing", key, inputs or {"a": 1}) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "data.txt").write_text(text)
        draft.meta["n"] = 3
    return store.path("thing", key)


def test_round_trip(store):
    make(store)
    found = store.find("thing", "abc")
    assert found.file("sub/data.txt").read_text() == "hello"
    assert (found.meta, found.inputs) == ({"n": 3}, {"a": 1})
    assert list((store.root / ".drafts").iterdir()) == []


def test_absent_is_none(store):
    assert store.find("thing", "nothing") is None


@pytest.mark.parametrize("name", ["sub/data.txt", "manifest.json"])
def test_every_flipped_byte_is_found_and_set_aside(store, name):
    reference = (make(store, key="xyz") / name).read_bytes()
    for position in range(len(reference)):
        folder = make(store)
        spoiled = bytearray((folder / name).read_bytes())
        spoiled[position] ^= 1
        (folder / name).write_bytes(bytes(spoiled))
        assert store.find("thing", "abc") is None, position
        assert not folder.exists()
    assert len(store.damaged) == len(reference) == len(list((store.root / ".quarantine").iterdir()))


@pytest.mark.parametrize("spoil", ["truncate", "remove", "no manifest"])
def test_other_damage(store, spoil):
    folder = make(store)
    if spoil == "truncate":
        os.truncate(folder / "sub" / "data.txt", 2)
    elif spoil == "remove":
        (folder / "sub" / "data.txt").unlink()
    else:
        (folder / "manifest.json").unlink()
    assert store.find("thing", "abc") is None
    assert store.damaged


def test_a_writer_that_fails_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.create("thing", "abc", {}) as draft:
        (draft.path / "half").write_text("x")
        raise RuntimeError
    assert store.find("thing", "abc") is None
    assert list((store.root / ".drafts").iterdir()) == []


def test_a_second_writer_of_the_same_key_keeps_the_first(store):
    make(store, text="first")
    make(store, text="second")
    assert store.find("thing", "abc").file("sub/data.txt").read_text() == "first"


def test_unwritable_home_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="RETAIN_HOME"):
        Store(tmp_path / "file" / "artifacts").prepare()


def test_keys_depend_on_content_not_on_order():
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1}) != key_of({"a": 1, "b": [2, 1]})


def test_manifest_is_plain_json(store):
    body = json.loads((make(store) / "manifest.json").read_text())
    assert set(body) == {"kind", "key", "inputs", "meta", "files", "created_at", "seal"}


def test_what_nobody_needs_is_forgotten(store):
    make(store)
    store.forget("thing", "abc")
    store.forget("thing", "abc")
    assert store.find("thing", "abc") is None
    assert list((store.root / ".drafts").iterdir()) == []


def test_what_unfinished_work_left_stays_until_the_work_is_done(store):
    make(store.unfinished("thing", "abc"), key="5")
    (store.root / ".drafts" / "half").mkdir()
    store.remove_leftovers()
    assert store.unfinished("thing", "abc").find("thing", "5")
    assert list((store.root / ".drafts").iterdir()) == []
    make(store)
    store.remove_leftovers()
    assert list((store.root / ".resume").iterdir()) == []
