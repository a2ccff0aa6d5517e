"""A server of our own that speaks OpenAI's chat completions: real HTTP, and answers that a test decides."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Chat:
    """Answers with `says(question, number of this question's request)`: a text, (text, finish reason), or an HTTP status."""

    def __init__(self, says, key=None):
        self.says, self.key = says, key
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = chat.answer(self.path, self.headers.get("Authorization"), body)
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path, authorization, body):
        if path != "/v1/chat/completions":
            return 404, {}
        if self.key and authorization != f"Bearer {self.key}":
            return 401, {"error": "no"}
        question = body["messages"][-1]["content"]
        with self._lock:
            self.asked.append(body)
            self.keys.append(authorization)
            said = self.says(question, sum(one["messages"][-1]["content"] == question for one in self.asked))
        if isinstance(said, int):
            return said, {"error": f"this is {said}"}
        text, finish = said if isinstance(said, tuple) else (said, "stop")
        return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
