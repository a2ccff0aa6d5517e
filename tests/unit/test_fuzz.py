"""Whatever stands in a file of the user's or of the store: one sentence or a result, never a traceback or half a file.

    RETAIN_FUZZ_CASES=10000 pytest tests/unit/test_fuzz.py

tries so many cases in all (350 unless set), anew every time; a failure prints what repeats it.
"""

import json
import math
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retain_core.canonical import canonical_json
from retain_core.cross import load_studies
from retain_core.errors import InputError, RetainError
from retain_core.evaluation.benchmarks import BENCHMARKS
from retain_core.imported.store import read_imported
from retain_core.lease import Lease, living, this_process, who
from retain_core.methods import NAMED
from retain_core.own.rows import examine, examine_documents, examine_prompts, read_rows, refuse_beyond
from retain_core.plan import base_reference, plan_study
from retain_core.public.catalogue import PUBLIC
from retain_core.revisions import revisions_of
from retain_core.store import MANIFEST, Store
from retain_core.study import Study
from retain_core.study_file import load_study
from tests.conftest import ROOT, tree

KINDS = 8
"""Sorts of files below, each with as many cases."""
CASES = math.ceil(int(os.environ.get("RETAIN_FUZZ_CASES", "350")) / KINDS)
fuzz = settings(
    max_examples=CASES, deadline=None, database=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip

LAB = (ROOT / "studies" / "lab.yaml").read_text()
OWN = (ROOT / "examples" / "own_method" / "study.yaml").read_text()
CROSSED = (ROOT / "studies" / "lab-full.yaml").read_text()
WORDS = [*Study.model_fields, *BENCHMARKS, *NAMED, "label", "algorithm", "model", "near", "yaml", "contrast", "at_gain"]
WORDS += [*PUBLIC, "revisions", "sizes", "lab/tiny", "cross", "trainer", "revision", "expert"]
BREAKING = [b"&a [*a]", b"!!python/name:os.system ", b"? [a]\n: b", b"{", b"- ", b": ", b"\t", b"9" * 5000, b"[" * 3000]
ROW = ["prompt", "answer", "valid", "cluster", "messages", "verb", "gold"]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 3), st.floats(), st.text(max_size=20), st.sampled_from(WORDS),
    st.just("2001-99-99"), st.just("\x00"), st.just("../x"), st.just(10**400),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), below, max_size=4)
    ),
    max_leaves=8,
)


@contextmanager
def folder():
    """An empty folder that is gone afterwards; hypothesis runs many cases within one test."""
    path = Path(tempfile.mkdtemp(prefix="retain-fuzz-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def one_sentence(error: RetainError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text, text
    assert "Traceback" not in text
    assert len(text) < 2000, len(text)


@st.composite
def edited(draw, *texts):
    """The bytes of a text with pieces deleted, doubled or replaced by others."""
    data = draw(st.sampled_from(texts)).encode()
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 30)))
        piece = draw(
            st.one_of(
                st.just(b""), st.just(data[start:end] * 2), st.binary(max_size=6), st.text(max_size=6).map(_encoded),
                st.sampled_from(BREAKING),
            )
        )  # fmt: skip
        data = data[:start] + piece + data[end:]
    return data


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def changed(draw, text):
    """A study as YAML with some of its values, at any depth, replaced by others."""
    raw = yaml.safe_load(text)
    for _ in range(draw(st.integers(1, 3))):
        place = raw
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from([*keys, "new"])) if keys else "new"
            below = place.get(key) if isinstance(place, dict) else place[key] if key != "new" else None
            if isinstance(below, dict | list) and below and draw(st.booleans()):
                place = below
                continue
            value = draw(values)
            if isinstance(place, list):
                place.append(value) if key == "new" else place.__setitem__(key, value)
            else:
                place[draw(st.sampled_from(WORDS)) if key == "new" else key] = value
            break
    return yaml.safe_dump(raw, allow_unicode=True).encode("utf-8", "surrogatepass")


studies = st.one_of(st.binary(max_size=200), edited(LAB, OWN, CROSSED), changed(LAB), changed(OWN), changed(CROSSED))


@fuzz
@given(studies)
def test_a_study_file_is_read_or_refused_in_one_sentence(data):
    with folder() as here:
        for name in ("train.jsonl", "held_out.jsonl", "manners.jsonl", "manners.yaml", "verifier.py", "method.py"):
            shutil.copy(ROOT / "examples" / "own_method" / name, here)
        path = here / "study.yaml"
        path.write_bytes(data)
        before = tree(here)
        try:
            for study in load_studies(path).studies:
                assert Study.model_validate_json(study.model_dump_json()) == study
                assert study.spec_hash()
                plan_study(study, Store(here / "nothing"))
        except InputError as error:
            one_sentence(error)
        assert tree(here) == before


def json_like(text: str):
    """Bytes, JSON, and a text with pieces of it changed."""
    return st.one_of(st.binary(max_size=50), values.map(lambda value: json.dumps(value).encode()), edited(text))


rows = st.one_of(
    st.builds(lambda value: json.dumps(value).encode(), values),
    st.builds(
        lambda row: json.dumps(row).encode(),
        st.dictionaries(st.sampled_from(ROW), values, max_size=4),
    ),
    st.text(min_size=1, max_size=5).map(lambda said: json.dumps({"prompt": said, "answer": "x", "valid": ["x"]}).encode()),
    st.binary(max_size=30), edited('{"prompt": "tell me", "answer": "green", "valid": ["green"], "cluster": 3}'),
)  # fmt: skip
files = st.lists(rows, max_size=8).map(b"\n".join)


@fuzz
@given(files, st.sampled_from([0.0, 0.3, 0.9]))
def test_every_row_of_a_file_is_good_or_bad_and_what_is_left_out_stays_out(data, share):
    with folder() as here:
        path = here / "rows.jsonl"
        path.write_bytes(data)
        lines = {number for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()}
        for found in (examine(path), examine_prompts(path), examine_documents(path, {"verb", "prompt"})):
            assert found.rows.keys() | found.bad.keys() == lines
            assert not found.rows.keys() & found.bad.keys()
            assert all(why and "\n" not in why for why in found.bad.values())
        found = examine_prompts(path)
        try:
            gone = refuse_beyond(path, found, share)
            assert dict(read_rows(path, gone)) == found.rows
            assert len(gone) <= share * len(lines)
        except InputError as error:
            one_sentence(error)
            assert not found.rows or len(found.bad) > share * len(lines)
        assert path.read_bytes() == data


@fuzz
@given(st.sampled_from(["train.jsonl", "held_out.jsonl", "manners.jsonl"]), files, st.booleans(), st.sampled_from([0, 0.5]))
def test_files_of_a_target_and_of_a_benchmark_are_read_or_refused_in_one_sentence(name, data, added, share):
    with folder() as here:
        shutil.copytree(
            ROOT / "examples" / "own_method", here, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        (here / name).write_bytes((here / name).read_bytes() + data if added else data)
        with (here / "study.yaml").open("a") as study:
            study.write(f"data: {{bad_rows: {share}}}\n")
        before = tree(here)
        try:
            read = load_study(here / "study.yaml")
            assert read.own.target.rows("train")
            assert Study.model_validate_json(read.model_dump_json()) == read
        except InputError as error:
            one_sentence(error)
            assert name in str(error)  # noqa: PT017
        assert tree(here) == before


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A store with one artifact, and the text of its manifest."""
    store = Store(tmp_path_factory.mktemp("store") / "artifacts")
    store.prepare()
    with store.create("thing", "abc", {"a": 1}) as draft:
        (draft.path / "data").write_bytes(b"hello")
        draft.meta["n"] = 1
    return store, (store.path("thing", "abc") / MANIFEST).read_text()


@fuzz
@given(data=st.data())
def test_a_manifest_is_whole_or_set_aside(artifact, data):
    original, text = artifact
    body = json.loads(text)
    other = st.builds(lambda key, value: json.dumps({**body, key: value}).encode(), st.sampled_from(list(body)), values)
    spoiled = data.draw(st.one_of(edited(text), other, st.binary(max_size=50), values.map(lambda v: json.dumps(v).encode())))
    with folder() as here:
        shutil.copytree(original.root, here / "artifacts")
        store = Store(here / "artifacts")
        manifest = store.path("thing", "abc") / MANIFEST
        manifest.write_bytes(spoiled)
        found = store.find("thing", "abc")
        try:
            same = canonical_json(json.loads(spoiled.decode())) == canonical_json(body)
        except (ValueError, RecursionError):
            same = False
        assert (found is not None) == same
        assert len(store.damaged) == len(list((store.root / ".quarantine").iterdir())) == (0 if same else 1)
        assert store.find("thing", "abc") is None or same


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.text(), below, max_size=3)), max_leaves=6,
)  # fmt: skip


def _storable(value) -> bool:
    if isinstance(value, dict):
        return all(_storable(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(map(_storable, value))
    if isinstance(value, str):
        return not any("\ud800" <= sign <= "\udfff" for sign in value)
    return not isinstance(value, float) or math.isfinite(value)


@fuzz
@given(st.dictionaries(st.text(), plain, max_size=3), st.dictionaries(st.text(), plain, max_size=3), st.binary(max_size=50))
def test_an_artifact_is_whole_or_absent(inputs, meta, content):
    with folder() as here:
        store = Store(here / "artifacts")
        store.prepare()
        try:
            with store.create("thing", "abc", inputs) as draft:
                (draft.path / "data").write_bytes(content)
                draft.meta.update(meta)
        except ValueError:
            assert not (_storable(inputs) and _storable(meta))
            assert tree(here) == {}
        else:
            found = store.find("thing", "abc")
            assert (found.inputs, found.meta) == (inputs, meta)
            assert found.file("data").read_bytes() == content
        assert list((store.root / ".drafts").iterdir()) == []


@fuzz
@given(
    data=st.one_of(
        st.binary(max_size=50),
        values.map(lambda v: json.dumps(v).encode()),
        edited('[{"number": 1, "spec": {}, "looks": [1]}]'),
    )
)
def test_a_damaged_record_of_declared_or_imported_studies_is_one_sentence(data):
    with folder() as here:
        store = Store(here)
        for kind, read in (("studies", revisions_of), ("imported", read_imported)):
            (here / kind).mkdir()
            (here / kind / "x.json").write_bytes(data)
            try:
                read(store, "x")
            except RetainError as error:
                one_sentence(error)
                assert str(here / kind / "x.json") in str(error)  # noqa: PT017


HELD = {"token": "x", **this_process(), "renewed_at": 4e9}


@fuzz
@given(
    st.one_of(
        json_like(json.dumps(HELD)),
        st.builds(lambda key, value: json.dumps({**HELD, key: value}).encode(), st.sampled_from(list(HELD)), values),
    )
)
def test_a_damaged_lease_has_a_holder_or_is_free(data):
    with folder() as here:
        (here / "work.json").write_bytes(data)
        held, lease = living(here) == {"work"}, Lease(here, "work")
        holder = lease.take()
        assert (holder is not None) == held
        if holder is not None:
            assert who(holder)
            assert (here / "work.json").read_bytes() == data
        lease.release()
        assert (here / "work.json").exists() == held


@fuzz
@given(
    st.sampled_from(["config.json", "tokenizer_config.json", "model.safetensors.index.json"]),
    json_like('{"model_type": "llama", "weight_map": {"a": "b"}}'),
)  # fmt: skip
def test_a_folder_of_a_model_is_read_or_refused_in_one_sentence(name, data):
    with folder() as here:
        (here / "config.json").write_text('{"model_type": "llama"}')
        (here / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
        (here / ("model.safetensors" if name != "model.safetensors.index.json" else "part.safetensors")).write_bytes(b"x")
        (here / name).write_bytes(data)
        raw = {**yaml.safe_load(LAB), "base": str(here)}
        try:
            base_reference(Study.model_validate(raw))
        except InputError as error:
            one_sentence(error)
