"""A server of object storage for these tests; without the packages for it they are left out."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture(scope="session")
def objects():
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    from tests.object_server import object_server

    with object_server() as server:
        yield server


@pytest.fixture
def bucket(objects, monkeypatch):
    """The name of an empty bucket that this process's variables lead to."""
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    objects.make_bucket(name)
    return name
