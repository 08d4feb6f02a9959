"""Content credentials of a coloured copy: what they say made it."""

import zlib

import pytest

from pipeline.metadata.c2pa import claim_generator


def text(words):
    data = words.encode()
    return (bytes([0x60 + len(data)]) if len(data) < 24 else bytes([0x78, len(data)])) + data


def store(claim):
    """A JUMBF superbox labelled c2pa, whose claim is CBOR."""
    label = b"\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"
    content = label + (len(claim) + 8).to_bytes(4, "big") + b"cbor" + claim
    return (len(content) + 8).to_bytes(4, "big") + b"jumb" + content


def as_jpeg(data, piece=10**4):
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
    segments = b""
    for number, part in enumerate(pieces, 1):
        head = b"JP\0\x01" + number.to_bytes(4, "big") + (data[:8] if number > 1 else b"")
        segments += b"\xff\xeb" + (len(head) + len(part) + 2).to_bytes(2, "big") + head + part
    return b"\xff\xd8" + segments + b"\xff\xda"


def as_png(data):
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"caBX", data) + chunk(b"IEND", b"")


OLD = store(b"\xa1" + text("claim_generator") + text("Colourizer/7.1 c2pa-rs/0.30"))
NEW = store(
    b"\xa1" + text("claim_generator_info") + b"\xa2" + text("name") + text("Painter") + text("version") + text("3")
)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (as_jpeg(OLD), "Colourizer/7.1 c2pa-rs/0.30"),
        (as_jpeg(OLD, piece=60), "Colourizer/7.1 c2pa-rs/0.30"),
        (as_png(NEW), "Painter"),
        (as_jpeg(store(b"\xa0")), "content credentials without a name"),
        (as_jpeg(OLD)[:70], "content credentials without a name"),
        (b"\xff\xd8\xff\xda", ""),
        (as_png(b"something else"), ""),
        (b"II*\0", ""),
        (b"", ""),
    ],
)
def test_the_claim_generator_is_told_and_nothing_breaks(tmp_path, data, name):
    (tmp_path / "copy").write_bytes(data)
    assert claim_generator(tmp_path / "copy") == name
