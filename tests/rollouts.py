"""A small server that holds a model of transformers and speaks vLLM's protocol of rollouts: weights in, samples out.

python -m tests.rollouts MODEL PORT [FAULT]

Each answer is drawn from a stream of its request's seed alone, so it does not depend on what else is asked. Like vLLM it
keeps what it computed for a prompt until it is told to forget it, whatever weights came since. What it was asked and which
weights it was given is told by /told. FAULT is one thing that it does wrong (`FAULTS`); /become makes it another server, with
{"folder": ..., "fault": ...}.
"""

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

FAULTS = (
    "cuts", "runs_on", "other_weights", "other_version", "no_versions", "no_log_probabilities", "not_json", "busy", "short",
    "dies_at_2",
)  # fmt: skip


def digest_of(weights):
    """Of weights by name, in any order."""
    sha = hashlib.sha256()
    for name in sorted(weights):
        sha.update(name.encode() + weights[name].detach().float().contiguous().numpy().tobytes())
    return sha.hexdigest()


class Served:
    """A model with the version of its weights."""

    def __init__(self, folder, fault):
        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.fault, self.version, self.lock = fault, "default", threading.Lock()
        self.kept = {}
        """Prompt -> the logits behind it: a cache that stays until it is reset."""
        self.told = {"seeds": [], "loaded": []}

    def reload(self, folder):
        (file,) = Path(folder).glob("*.safetensors")
        weights = load_file(file)
        if self.fault == "other_weights":
            weights = {name: torch.randn(weight.shape) for name, weight in weights.items()}
        # Names and shapes must be the model's own; a tied output layer stands in no file.
        missing, surplus = self.model.load_state_dict(weights, strict=False)
        tied = set(self.model._tied_weights_keys or ())
        if surplus or set(missing) - tied:
            raise ValueError(f"weights do not fit: {surplus or missing}")
        self.told["loaded"].append([self.version, digest_of(dict(self.model.named_parameters()))])
        if self.fault == "dies_at_2" and len(self.told["loaded"]) == 3:
            os._exit(1)

    def completion(self, body):
        assert body["top_p"] == body["repetition_penalty"] == 1.0
        assert body["top_k"] == body["min_p"] == 0
        assert body["ignore_eos"]
        (stop,) = body["stop_token_ids"]
        stream = torch.Generator().manual_seed(body["seed"])
        prompt, new, found = body["prompt"], [], []
        most = 3 if self.fault == "cuts" else body["max_tokens"]
        with self.lock, torch.no_grad():
            self.told["seeds"].append(body["seed"])
            while len(new) < most and new[-1:] != [stop]:
                logits = self._behind(prompt) if not new else self.model(torch.tensor([prompt + new])).logits[0, -1]
                log_probabilities = (logits / body["temperature"]).log_softmax(-1)
                token = int(torch.multinomial(log_probabilities.exp(), 1, generator=stream))
                new.append(token)
                found.append(float(log_probabilities[token]))
            if self.fault == "other_version":
                self.version = "somebody's"
        reason = "stop" if new[-1] == stop else "length"
        if self.fault == "runs_on":
            new[0] = stop
        logprobs = None if self.fault == "no_log_probabilities" else {"token_logprobs": found}
        choice = {"index": 0, "text": "", "finish_reason": reason, "token_ids": new, "logprobs": logprobs}
        return {"choices": [choice]}

    def _behind(self, prompt):
        if tuple(prompt) not in self.kept:
            self.kept[tuple(prompt)] = self.model(torch.tensor([prompt])).logits[0, -1]
        return self.kept[tuple(prompt)]

    def post(self, path, body):
        """(status, what is said) of a request."""
        if path == "/become":
            self.__init__(**body)
            return 200, {}
        if path == "/v1/completions":
            return 200, self.completion(body)
        if path == "/tokenize":
            return 200, {"tokens": self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]}
        if path == "/update_weight_version":
            self.version = body["new_version"]
            return 200, {"success": True, "new_version": self.version}
        if path == "/reset_prefix_cache":
            self.kept.clear()
            return 200, {"success": self.fault != "busy"}
        if path == "/collective_rpc" and body["method"] == "reload_weights":
            try:
                self.reload(body["kwargs"]["weights_path"])
            except Exception as error:
                return 500, {"error": f"{type(error).__name__}: {error}"}
            return 200, {"results": [None]}
        return 404, {"detail": "Not Found"}

    def get(self, path):
        """(status, what is said) of a question."""
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny", "max_model_len": 8 if self.fault == "short" else 512}]}
        if path == "/weight_info" and self.fault != "no_versions":
            return 200, {"weight_version": self.version}
        if path == "/told":
            return 200, self.told
        return 404, {"detail": "Not Found"}


def main(folder, port, fault=""):
    assert fault in ("", *FAULTS)
    served = Served(folder, fault)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(*served.get(self.path))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(*served.post(self.path, body))

        def reply(self, status, body):
            data = b"<html>" if served.fault == "not_json" else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    Server(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
