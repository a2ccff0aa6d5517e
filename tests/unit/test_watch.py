"""The watch without a model: what a watch file may say, what counts as a checkpoint, and what a webhook is told."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from retain_core.errors import InputError
from retain_core.gate.find import INDEX, Found, in_folder, is_whole
from retain_core.gate.watch import Seen, exit_code, unjudged
from retain_core.gate.watch_file import Folder, load_watch
from retain_core.webhook import check_address, post


def written(tmp_path, text):
    path = tmp_path / "watch.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path):
    watch = load_watch(written(tmp_path, "study: s.yaml\nfolder: {path: out}\nmargin: 3\n"))
    assert (watch.study, watch.folder.path, watch.fraction) == (tmp_path / "s.yaml", tmp_path / "out", 0.03)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "a watch file is a mapping"),
        ("study: s\n", "say where to look: one of folder, hub and registry"),
        ("study: s\nfolder: {path: a}\nregistry: {model: b}\n", "one of folder, hub and registry"),
        ("study: s\nfolder: {path: a, recursive: yes}\n", "unknown key 'folder.recursive'"),
        ("study: s\nfolders: {path: a}\n", "unknown key 'folders'"),
        ("study: s\nhub: {model: nothing}\n", "no id of the hub"),
        ("study: s\nfolder: {path: a}\nmargin: 0\n", "margin: Input should be greater than 0"),
        ("study: s\nfolder: {path: a}\nnotify: {webhook_env: 'https://x/y'}\n", "an address is a secret"),
        ("study: s\nfolder: {path: a}\nnotify: {webhook_env: A, webhook_secret: b}\n", "give one"),
        ("study: s\nfolder: {path: a}\nnotify: {block: alerts}\n", "slack-webhook/alerts"),
        ("study: s\nfolder: {path: a}\nnotify: {decisions: [reject]}\n", "unknown decision 'reject'"),
        ("study: [\n", "not valid YAML"),
    ],
)
def test_wrong_files_are_one_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError, match=r"watch\.yaml") as caught:
        load_watch(written(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_secret_in_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ALERT_TOKEN", "s3cret-of-mine")
    with pytest.raises(InputError, match="ALERT_TOKEN") as caught:
        load_watch(written(tmp_path, "study: s3cret-of-mine\nfolder: {path: a}\n"))
    assert "s3cret" not in str(caught.value)


def checkpoint(folder, *weights, shards=None, age=100):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for name in weights:
        (folder / name).write_bytes(b"w")
    if shards:
        (folder / INDEX).write_text(json.dumps({"weight_map": {str(i): name for i, name in enumerate(shards)}}))
    for path in folder.iterdir():
        os.utime(path, (1000 - age, 1000 - age))


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_only_what_is_written_to_its_end_is_a_checkpoint(tmp_path):
    checkpoint(tmp_path / "b", "model.safetensors", age=300)
    checkpoint(tmp_path / "run" / "checkpoint-5", *SHARDS, shards=SHARDS, age=200)
    checkpoint(tmp_path / "young", "model.safetensors", age=30)
    checkpoint(tmp_path / "pickle", "model.bin")
    checkpoint(tmp_path / "half", SHARDS[0], shards=SHARDS)
    checkpoint(tmp_path / "no-index", *SHARDS)
    checkpoint(tmp_path / "tmp-checkpoint-9", "model.safetensors")
    checkpoint(tmp_path / ".cache" / "x", "model.safetensors")
    (tmp_path / "adapter").mkdir()
    found = [one.name for one in in_folder(Folder(path=tmp_path, settle=60), now=1000)]
    assert found == ["b", "run/checkpoint-5"]
    assert [one.name for one in in_folder(Folder(path=tmp_path, settle=0), now=1000)] == ["b", "run/checkpoint-5", "young"]


def test_a_damaged_index_is_no_checkpoint(tmp_path):
    checkpoint(tmp_path / "a", "model.safetensors")
    for text in ("", "[]", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": "gone.safetensors"}}'):
        (tmp_path / "a" / INDEX).write_text(text)
        assert not is_whole(tmp_path / "a")


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        in_folder(Folder(path=tmp_path / "gone"), now=0)


def test_the_worst_decision_is_the_exit_code(tmp_path):
    def seen(*words):
        return [Seen(Found(word, tmp_path), {"decision": word, "sentence": word}) for word in words]

    assert exit_code([]) == exit_code(seen("ALLOW", "ALLOW")) == 0
    assert exit_code(seen("ALLOW", "INCONCLUSIVE")) == 4
    assert exit_code(seen("INCONCLUSIVE", "REJECT", "ALLOW")) == 3
    failed = Seen(Found("x", tmp_path), problem="no")
    assert exit_code([*seen("REJECT"), failed]) == 1
    assert not unjudged([*seen("ALLOW"), failed])
    assert unjudged([Seen(Found("y", tmp_path))])


@pytest.mark.parametrize(
    "address", ["http://example.org/x", "ftp://127.0.0.1/", "file:///etc/passwd", "http://[", "x", "https://"]
)
def test_only_safe_addresses_are_told(address):
    with pytest.raises(InputError) as caught:
        check_address(address)
    assert address not in str(caught.value) or address in ("x", "https://")


def test_a_webhook_gets_the_document_and_its_failure_is_a_sentence_without_the_address():
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response({"/ok": 204, "/moved": 302}.get(self.path, 500))
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert post(f"{url}/ok", {"decision": "REJECT"}) == ""
        assert post(f"{url}/secret", {}) == "the webhook answered 500"
        assert post(f"{url}/moved", {}) == "the webhook answered 302"
        server.shutdown()
    assert bodies[0] == {"decision": "REJECT"}
    assert post(f"{url}/secret", {}) == "the webhook does not answer (URLError)"
