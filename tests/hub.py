"""A stand-in for the Hugging Face hub on this machine: the few routes that fetching a model or a data set asks for."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = hashlib.sha256(b"the only commit").hexdigest()[:40]


def commit(name: str) -> str:
    """The commit that a branch of the stand-in points to."""
    return hashlib.sha256(name.encode()).hexdigest()[:40]


class Hub:
    """Serves folders as repositories; `asked` is every path that was asked for."""

    def __init__(
        self,
        models: dict[str, Path],
        datasets: dict[str, Path] | None = None,
        branches: dict[str, Path] | None = None,
        gated: tuple[str, ...] = (),
    ) -> None:
        """`branches` are further revisions of every model, each a commit of its own; `gated` has no files without a token."""
        self.gated = gated
        self.branches = {name: (commit(name), folder) for name, folder in (branches or {}).items()}
        self.repos = {("models", name): folder for name, folder in models.items()}
        self.repos |= {("datasets", name): folder for name, folder in (datasets or {}).items()}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.asked.append(f"{request.command} {path}")
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        else:
            kind = "datasets" if parts[0] == "datasets" else "models"
            parts = parts[1:] if kind == "datasets" else parts
            name, rest = "/".join(parts[:2]), parts[2:]
        folder = self.repos.get((kind, name))
        if folder is None:
            return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if name.endswith("gated") or (name in self.gated and rest[:1] == ["resolve"]):
            return self._send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if rest[:1] == ["refs"]:
            heads = {"main": SHA} | {branch: sha for branch, (sha, _) in self.branches.items()}
            refs = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": sha} for one, sha in heads.items()]
            return self._json(request, {"branches": refs, "tags": [], "converts": []})
        sha = SHA
        for branch, (head, other) in self.branches.items():
            if len(rest) > 1 and rest[1] in (branch, head):
                sha, folder, rest = head, other, [rest[0], SHA, *rest[2:]]
        if len(rest) > 1 and rest[1] not in ("main", SHA):
            return self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if rest[:1] == ["resolve"]:
            file = files.get("/".join(rest[2:]))
            if file is None:
                return self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            data = file.read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            return self._send(request, 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Content-Type": "x/y"})
        if rest[:1] == ["tree"]:
            below = "/".join(rest[2:])
            return self._json(request, [_entry(n, p) for n, p in files.items() if not below or n.startswith(f"{below}/")])
        siblings = [{"rfilename": n, "size": p.stat().st_size} for n, p in files.items()]
        return self._json(request, {"id": name, "sha": sha, "siblings": siblings, "private": False, "tags": [], "downloads": 0})

    def _json(self, request: BaseHTTPRequestHandler, body: object) -> None:
        self._send(request, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def _entry(name: str, path: Path) -> dict[str, object]:
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}
