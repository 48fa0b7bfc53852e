"""A model hub of a few lines, over real HTTP: the listing and the files of some folders."""

import http.server
import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import ClassVar

REVISION = "0123456789abcdef0123456789abcdef01234567"
REFERENCES = ("main", "v1.0", REVISION)
"""What names the one revision of each repository."""


class _Hub(http.server.BaseHTTPRequestHandler):
    folders: ClassVar[Mapping[str, Path]]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        for repository, folder in self.folders.items():
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{repository}/revision/"):
                if path.rpartition("/")[2] not in REFERENCES:
                    return self._refuse("RevisionNotFound")
                return self._send(json.dumps({"id": repository, "sha": REVISION, "siblings": []}).encode(), with_body)
            if path == f"/api/models/{repository}/tree/{REVISION}":
                files = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _oid(file)}
                    for file in folder.iterdir()
                ]
                return self._send(json.dumps(files).encode(), with_body)
            file = folder / path.removeprefix(f"/{repository}/resolve/{REVISION}/")
            if path.startswith(f"/{repository}/resolve/") and file.is_file():
                return self._send(file.read_bytes(), with_body, _oid(file))
        return self._refuse("RepoNotFound")

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, with_body: bool, etag: str = "listing") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        pass


def _oid(file: Path) -> str:
    return sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def fake_hub(folders: Mapping[str, Path]) -> Generator[str]:
    """Serves `folders` as repositories; yields the endpoint's address."""
    handler = type("Hub", (_Hub,), {"folders": folders})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
