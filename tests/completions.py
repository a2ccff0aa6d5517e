"""A small OpenAI-compatible server of completions for a model of transformers: what vLLM serves, one request at a time.

python -m tests.completions MODEL PORT
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Served:
    """A model, asked in float32."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.lock = threading.Lock()

    def completion(self, body):
        ids = body["prompt"]
        if ids and isinstance(ids[0], list):
            (ids,) = ids
        prompt, most = torch.tensor([ids]), body["max_tokens"]
        end = self.tokenizer.eos_token_id
        with self.lock, torch.no_grad():
            out = self.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=most, eos_token_id=end,
                pad_token_id=end,
            )[0].tolist()  # fmt: skip
            logprobs = self._logprobs(out) if body.get("echo") else None
        new = out[len(ids) :]
        text, finish = self.tokenizer.decode(new, skip_special_tokens=True), "stop" if end in new else "length"
        for stop in body.get("stop") or []:
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
        return {"choices": [choice], "usage": usage}

    def _logprobs(self, ids):
        found = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        tokens = [None, *(float(found[i, t]) for i, t in enumerate(ids[1:]))]
        top = [None, *({"best": float(row.max())} for row in found[:-1])]
        return {"token_logprobs": tokens, "top_logprobs": top}


def main(folder, port):
    served = Served(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply({"data": [{"id": "tiny"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body["model"] == "tiny"
            self.reply(served.completion(body))

        def reply(self, body):
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
