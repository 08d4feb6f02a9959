"""A time-stamping authority (RFC 3161) on this machine: ``openssl ts`` behind a small web server."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certificates import signer

IS_HERE = shutil.which("openssl") is not None
_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""


@dataclass(frozen=True)
class Authority:
    """Its address, and the certificate above its own, in PEM."""

    url: str
    root: str


@contextmanager
def authority(folder: Path) -> Iterator[Authority]:
    """An authority with files in ``folder``, for as long as the context is open."""
    made = signer("Time Stamps", usage=ExtendedKeyUsageOID.TIME_STAMPING)
    files = {"serial": "01\n", "config": _CONFIG.format(folder=folder), "chain.pem": made.chain, "key.pem": made.key}
    for name, text in files.items():
        (folder / name).write_text(text)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            words = ["openssl", "ts", "-reply", "-config", "config", "-queryfile", "query"]
            words += ["-signer", "chain.pem", "-inkey", "key.pem", "-chain", "chain.pem"]
            reply = subprocess.run(words, cwd=folder, capture_output=True, check=True).stdout
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Authority(f"http://127.0.0.1:{server.server_port}/", made.root)
    finally:
        server.shutdown()
        server.server_close()
