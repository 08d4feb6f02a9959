"""A server of object storage on this machine: moto's, which keeps its objects in memory."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

_ACCESS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class ObjectServer:
    """The running server: where it is, and another client than ours to look into it."""

    endpoint: str
    client: Any

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables by which commands find it."""
        return {**_ACCESS, "AWS_ENDPOINT_URL": self.endpoint}

    def make_bucket(self, name: str) -> None:
        self.client.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def keys(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Sizes in bytes of all objects below a prefix, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def need_rights(self, after: int | None) -> None:
        """Refuse whoever is not known, after so many requests; None: refuse nobody."""
        count = float("inf") if after is None else after
        plain = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", str(count).encode(), plain)
        with urllib.request.urlopen(asked) as answer:
            answer.read()


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Start a server on a free port for the body."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        yield ObjectServer(
            endpoint,
            boto3.client(
                "s3",
                endpoint_url=endpoint,
                aws_access_key_id=_ACCESS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=_ACCESS["AWS_SECRET_ACCESS_KEY"],
                region_name=_ACCESS["AWS_DEFAULT_REGION"],
            ),
        )
    finally:
        server.stop()
