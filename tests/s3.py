"""An S3 server of the tests' own on loopback, one request at a time: moto checks a put's conditions, but not in one step."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import pytest

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server that holds a bucket named `retain`."""
    pytest.importorskip("moto", reason="pip install 'retain[dev]'")
    from moto.backends import get_backend
    from moto.server import DomainDispatcherApplication, create_backend_app
    from s3fs import S3FileSystem
    from werkzeug.serving import make_server

    S3FileSystem.clear_instance_cache()  # an instance goes on asking the server that was there when it was made

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    backend = get_backend("s3")["123456789012"]["aws"]
    backend.reset()
    backend.create_bucket("retain", "us-east-1")
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
