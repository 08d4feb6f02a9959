"""Content Credentials (C2PA) of results: a signed statement in or beside each picture, of what was done to which scan.

What is embedded leaves the picture's own bytes as they were, which is shown before the file is used
(:mod:`pipeline.results.signatures`). Where the format takes none, or where that cannot be shown, the statement lies in
``PICTURE.c2pa``: with JPEG 2000; with a cloud-optimized TIFF and with BigTIFF, where the library adds a directory
without a picture or refuses. Of a picture that is a folder, the list of its files with their hashes is signed, which
is also what its hash in the sidecar is of.

The library is optional: ``pip install 'colorize-archive[c2pa]'``. Nothing is fetched; only a time stamp, where one is
asked for, needs the network.

References
----------
C2PA Technical Specification 2.2, "External manifests", "Actions" (``c2pa.edited``, which needs the opened parent) and
"Validation"; IPTC's terms for digital source types: http://cv.iptc.org/newscodes/digitalsourcetype/.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pipeline.errors import OutputError, StoreError, UsageError
from pipeline.formats import FORMATS
from pipeline.metadata.provenance import SOURCE_TYPE
from pipeline.results.sidecar import PictureRecord, Sidecar
from pipeline.results.signatures import Signature, beside, embedded
from pipeline.support.files import (
    file_sha256,
    open_file,
    output_error,
    size_bytes,
    tree_list,
    tree_sha256,
    write_whole,
    writing,
)
from pipeline.support.text import reason_of

CREDENTIAL_ENDING = ".c2pa"
# What the scan itself is of, by IPTC's terms.
SCAN_TYPES = ("print", "negativeFilm", "positiveFilm", "digitalCapture")
_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OURS = "org.colorize-archive"
_BYTES = "application/octet-stream"  # the file as it is: no library looks for a manifest in it
_LONGEST_S = 60
_TIFF_TAG = 52545  # of the embedded statement

State = Literal["trusted", "untrusted", "expired", "older", "tampered", "missing"]


@dataclass(frozen=True)
class Signing:
    """With what to sign.

    Attributes
    ----------
    chain : PEM of the signer's certificate and those above it
    key : PEM of its private key; empty if ``command`` signs
    command : a program that reads what is to be signed and writes the signature; empty if ``key`` signs
    timestamp_url : RFC 3161 authority; empty for none
    """

    chain: str
    key: str = ""
    command: str = ""
    timestamp_url: str = ""


@dataclass(frozen=True)
class Statement:
    """What is said of one picture, beside what the sidecar says; ``scan_type`` is one of ``SCAN_TYPES``, or empty."""

    approved_by: tuple[str, ...] = ()
    scan_type: str = ""


@dataclass(frozen=True)
class Finding:
    """What the credentials of one picture are worth.

    Attributes
    ----------
    state : "trusted", or "untrusted" where the certificate is of nobody who is trusted; "expired" where it was no
        longer valid; "older", if it is of an earlier picture of that name; "tampered" where bytes or statement differ;
        "missing" where the sidecar knows of credentials that are not there
    signer : organization of the certificate
    reason : one line, for people
    told : the values of the statement
    """

    state: State
    signer: str
    reason: str
    told: Mapping[str, Any]

    def __str__(self) -> str:
        by = f" by {self.signer}" if self.signer else ""
        return f"Content Credentials{by}: {self.state}{f' ({self.reason})' if self.reason else ''}"


def credential_of(picture: Path) -> Path:
    """The path of a picture's credentials."""
    return picture.with_name(picture.name + CREDENTIAL_ENDING)


@dataclass(frozen=True)
class Wanted:
    """What is to be signed: a picture of a result.

    Attributes
    ----------
    sidecar : of the result
    name : the picture's format
    scan : the scan file, which becomes the parent; None if it is gone, and then its record stands for it
    embeds : put the credentials into the picture, where that can be done
    """

    picture: Path
    sidecar: Sidecar
    name: str
    scan: Path | None = None
    embeds: bool = True

    @property
    def record(self) -> PictureRecord:
        return self.sidecar.pictures[self.name]

    @property
    def media_type(self) -> str:
        """As what credentials are put into the file; empty if they lie beside it."""
        return FORMATS[self.name].SIGNED_AS if self.embeds else ""


def sign_picture(wanted: Wanted, signing: Signing, says: Statement, write: Callable[[PictureRecord], None]) -> None:
    """Sign a picture; ``write`` puts its new record into the sidecar.

    Files are written beside their places and renamed. A sidecar that says "embedded" knows the hashes of the picture
    before and after, so that it is right whenever this is stopped.

    Raises
    ------
    UsageError : the library, the certificate or the key is missing or will not do.
    StoreError : the picture is not the one of the sidecar
    OutputError : the picture cannot be read, or the credentials not be written
    """
    _library()
    with contextlib.ExitStack() as stack:
        unsigned, sha256 = _unsigned(wanted.picture, wanted.record, stack)
        if wanted.media_type and _embed(wanted, unsigned, sha256, signing, says, write, stack):
            return
        data = _signed(wanted, unsigned, sha256, _BYTES, signing, says, None)
        _put(unsigned, wanted.picture)
        size = size_bytes(wanted.picture)
        record = wanted.record.without_signature(size, sha256)
        if wanted.record.signed:
            write(record)  # it must not take the new file for the old one with other bytes
        path = credential_of(wanted.picture)
        write_whole(path, data)
        write(record.with_signature(beside(path, size, sha256, bool(wanted.media_type))))


def unsign_picture(picture: Path, record: PictureRecord) -> PictureRecord:
    """Take embedded credentials out of a picture; its record without them, to be put into the sidecar.

    A record that says "embedded" knows the picture without them, too, so that the sidecar is right before and after.

    Raises
    ------
    StoreError : the picture is not the one of its record, and stays as it is
    OutputError : the picture cannot be written
    """
    with contextlib.ExitStack() as stack:
        unsigned, sha256 = _unsigned(picture, record, stack)
        _put(unsigned, picture)
    return record.without_signature(size_bytes(picture), sha256)


def check_content(picture: Path, record: PictureRecord) -> Signature | None:
    """The credentials that are embedded in a picture; None if none are. Reads all its bytes.

    Raises StoreError if its bytes are neither those that were recorded nor those before it was signed.
    """
    try:
        sha256 = tree_sha256(picture)
        signature = record.signature
        if signature is not None and signature.is_embedded:
            if sha256 == record.sha256 and signature.unsigned_sha256_of(picture) == signature.unsigned_sha256:
                return signature
            if sha256 == signature.unsigned_sha256:
                return None
        elif sha256 == record.sha256:
            return None
    except OSError as error:
        raise StoreError(f"{picture}: cannot be read ({error.strerror or error})") from error
    raise StoreError(f"{picture}: its bytes are not those that were recorded, and are not signed; run it again")


def _put(unsigned: Path, picture: Path) -> None:
    """Put a copy of a picture as it was before it was signed in its place, if it is not the picture itself."""
    if unsigned != picture:
        with writing(picture):
            os.replace(unsigned, picture)


def _unsigned(picture: Path, record: PictureRecord, stack: contextlib.ExitStack) -> tuple[Path, str]:
    """The picture before it was signed, or a copy of that, and its hash. Raises StoreError, OutputError."""
    signature = check_content(picture, record)
    if signature is None:
        before = record.signature
        return picture, before.unsigned_sha256 if before is not None and before.is_embedded else record.sha256
    part = _part(picture, stack)
    with writing(part), part.open("wb") as stream:
        for chunk in signature.unsigned(picture):
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    return part, signature.unsigned_sha256


def _embed(
    wanted: Wanted,
    unsigned: Path,
    sha256: str,
    signing: Signing,
    says: Statement,
    write: Callable[[PictureRecord], None],
    stack: contextlib.ExitStack,
) -> bool:
    """Put credentials into the picture; False if the file takes none, or would not stay what it is."""
    part = _part(wanted.picture, stack)
    with writing(wanted.picture):
        with part.open("w+b") as stream:
            if not _signed(wanted, unsigned, sha256, wanted.media_type, signing, says, stream):
                return False
            stream.flush()
            os.fsync(stream.fileno())
        signature = embedded(unsigned, sha256, part)
    if signature is None or _facts(wanted, unsigned) != _facts(wanted, part):
        return False
    record = replace(wanted.record, bytes=size_bytes(part), sha256=file_sha256(part))
    _put(unsigned, wanted.picture)  # the new record knows the picture without and with the new piece, not with the old
    write(record.with_signature(signature))
    with writing(wanted.picture):
        os.replace(part, wanted.picture)
        credential_of(wanted.picture).unlink(missing_ok=True)
    return True


def _facts(wanted: Wanted, path: Path) -> object:
    """What a file says of its picture: the bytes of the pixels are the same, but a directory may be another one."""
    made, shape_yx = FORMATS[wanted.name], wanted.sidecar.needed("source", wanted.sidecar.whole_source).shape_yx
    try:
        with made.open_back(path, 1) as reader:
            told = {name: value for name, value in reader.info.metadata.items() if name != "dropped"}
            info = replace(reader.info, metadata=told)  # without the names of what readers pass over, such as the piece
        found = made.embedded(path)
        found = replace(found, tags=tuple(tag for tag in found.tags if tag.code != _TIFF_TAG))
        return info, found, made.levels(path, shape_yx)
    except Exception as error:  # libraries have many kinds
        return reason_of(error)


def _part(picture: Path, stack: contextlib.ExitStack) -> Path:
    """A name beside a picture; what has it is removed at the end."""
    part = picture.with_name(f"{picture.name}.{secrets.token_hex(4)}.part")
    stack.callback(part.unlink, missing_ok=True)
    return part


def _signed(
    wanted: Wanted,
    unsigned: Path,
    sha256: str,
    media_type: str,
    signing: Signing,
    says: Statement,
    target: BinaryIO | None,
) -> bytes:
    """Sign ``unsigned`` into ``target``, or apart from it if that is None; the credentials.

    They are empty if the library cannot put any into such a file. Raises UsageError, OutputError.
    """
    c2pa = _library()
    sidecar, source = wanted.sidecar, wanted.sidecar.needed("source", wanted.sidecar.whole_source)
    ingredient = {
        "title": source.name,
        "relationship": "parentOf",
        "instance_id": f"sha256:{source.sha256}",
        **({"description": f"{_TERMS}{says.scan_type}"} if says.scan_type else {}),
    }
    context = c2pa.Context.from_dict(_SETTINGS)
    made = _Watched(_Nowhere() if target is None else target)
    try:
        builder = c2pa.Builder(_manifest(wanted.picture, sidecar, sha256, says), context=context)
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        if target is None:
            builder.set_no_embed()
        with _parent(wanted.scan, source.to_json()) as stream:
            builder.add_ingredient(ingredient, _BYTES, stream)
        signer = _signer(c2pa, signing)
        with _content(unsigned) as stream:
            read = _Watched(stream)
            try:
                return bytes(builder.sign(signer, media_type, read, made))
            except c2pa.C2paError as error:
                if read.error is not None:
                    raise read.error from error
                if made.error is None and target is not None and isinstance(error, _cannot_embed(c2pa)):
                    return b""
                raise
    except c2pa.C2paError as error:
        if made.error is not None:
            raise output_error(made.error, wanted.picture) from error
        raise UsageError(
            f"{wanted.picture}: could not be signed ({reason_of(error)}); mend certificate or key"
        ) from error
    except OSError as error:
        raise OutputError(f"{wanted.picture}: could not be read to be signed ({error.strerror or error})") from error


def check_credentials(picture: Path, record: PictureRecord, trust: str = "") -> Finding | None:
    """What the credentials of a picture are worth; None if it has none.

    Parameters
    ----------
    record : the picture's in the sidecar
    trust : PEM of certificates that are trusted to sign, or to issue signers' certificates; empty for none

    Raises UsageError if the library is missing.
    """
    signature, path = record.signature, credential_of(picture)
    is_embedded = signature is not None and signature.is_embedded
    if not is_embedded and not path.is_file():
        return None if signature is None else Finding("missing", "", "they are not there any more; sign it again", {})
    c2pa = _library()
    settings = {**_SETTINGS, "trust": {"trust_anchors": trust}} if trust else _SETTINGS
    context = c2pa.Context.from_dict(settings)
    try:
        if signature is not None and is_embedded:
            if size_bytes(picture) == signature.unsigned_bytes:
                return Finding("missing", "", "the picture is as it was before it was signed; sign it again", {})
            if signature.piece_sha256(picture) != signature.sha256:
                return Finding("tampered", "", "the statement is not what was signed", {})
        elif signature is not None and file_sha256(path) != signature.sha256:
            return Finding("tampered", "", "the statement is not what was signed", {})
        with _content(picture) as stream:
            if is_embedded:
                reader = c2pa.Reader(_media_type(picture), stream, context=context)
            else:
                reader = c2pa.Reader(_BYTES, stream, path.read_bytes(), context=context)
            manifest, results = reader.get_active_manifest() or {}, reader.get_validation_results() or {}
    except (c2pa.C2paError, OSError, ValueError) as error:
        return Finding("tampered", "", f"cannot be read: {reason_of(error)}", {})
    codes = [str(each["code"]) for each in results.get("activeManifest", {}).get("failure", ())]
    told = _told(manifest)
    signer = str(manifest.get("signature_info", {}).get("issuer", ""))
    own = signature.unsigned_sha256 if signature is not None else record.sha256
    state, reason = _judged(codes, told, own)
    return Finding(state, signer, reason, told)


def _media_type(picture: Path) -> str:
    """Of a picture with embedded credentials, by its name."""
    found = [each for each in FORMATS.values() if each.SIGNED_AS and picture.name.endswith(each.ENDING)]
    return max(found, key=lambda each: len(each.ENDING)).SIGNED_AS if found else _BYTES


def is_available() -> bool:
    """True if the library is installed."""
    return find_spec("c2pa") is not None


def _judged(codes: list[str], told: Mapping[str, Any], sha256: str) -> tuple[State, str]:
    """The state by the validator's codes ("Validation", status codes), and why."""
    of_picture = [code for code in codes if code.endswith(".mismatch") and "dataHash" in code]
    of_signer = [code for code in codes if code.startswith("signingCredential.")]
    others = [code for code in codes if code not in of_picture and code not in of_signer and not _is_of_time(code)]
    if others:
        return "tampered", f"the statement is not what was signed: {others[0]}"
    if of_picture:
        if told.get("picture_sha256") != sha256:
            return "older", "they are of an earlier picture of this name; sign it again"
        return "tampered", "the picture is not what was signed"
    if "signingCredential.expired" in codes or any(map(_is_of_time, codes)):
        return "expired", "the certificate was not valid any more, and no time stamp says when it was used"
    if of_signer:
        return "untrusted", "whole, but the certificate is of nobody who is trusted"
    return "trusted", ""


def _is_of_time(code: str) -> bool:
    return code == "claimSignature.outsideValidity"


def _told(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The values of our own action."""
    for assertion in manifest.get("assertions", ()):
        for action in assertion.get("data", {}).get("actions", ()) if "actions" in assertion.get("label", "") else ():
            found = action.get("parameters", {}).get(_OURS)
            if isinstance(found, dict):
                return found
    return {}


def _manifest(picture: Path, sidecar: Sidecar, sha256: str, says: Statement) -> dict[str, Any]:
    software, _, version = sidecar.software.rpartition(" ")
    spec, source = sidecar.spec, sidecar.needed("source", sidecar.whole_source)
    values: dict[str, Any] = {
        "picture_sha256": sha256,
        "scan_sha256": source.sha256,
        "scan_page": source.page,
        "version": spec.version if spec else "",
        "model": spec.model if spec else "",
        "model_sha256": spec.model_sha256 if spec else "",
    }
    if spec is not None and spec.palette_sha256:
        values["palette_sha256"] = spec.palette_sha256
    if says.approved_by:
        values["approved_by"] = list(says.approved_by)
    if says.scan_type:
        values["scan_source_type"] = f"{_TERMS}{says.scan_type}"
    action = {
        "action": "c2pa.edited",
        "when": sidecar.finished,
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": {"name": software or sidecar.software, "version": version},
        "description": "Colour added by an algorithm; lightness is the scan's own. The colours are not evidence.",
        "parameters": {_OURS: values},
    }
    return {
        "claim_generator_info": [{"name": software or "colorize-archive", "version": version or "unknown"}],
        "title": picture.name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


# No thumbnails, which would make the statement a hundred times as large; and nothing is fetched.
_SETTINGS: dict[str, Any] = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_trust": True, "verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}


def _signer(c2pa: Any, signing: Signing) -> Any:
    algorithm = _algorithm(signing.chain)
    url = signing.timestamp_url or None
    if signing.command:
        return c2pa.Signer.from_callback(_by_command(signing.command), algorithm, signing.chain, url)
    known = algorithm.name.lower().encode()
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(known, signing.chain.encode(), signing.key.encode(), url))


def _by_command(command: str) -> Callable[[bytes], bytes]:
    """Signs by a program of the user's: a token's, a key service's."""

    def sign(data: bytes) -> bytes:
        done = subprocess.run(shlex.split(command), input=data, capture_output=True, timeout=_LONGEST_S, check=True)
        return done.stdout

    return sign


def _algorithm(chain: str) -> Any:
    """The algorithm of a certificate's key. Raises UsageError."""
    from c2pa import C2paSigningAlg
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        key = x509.load_pem_x509_certificates(chain.encode())[0].public_key()
    except ValueError as error:
        raise UsageError(
            f"--certificate: no certificates in PEM ({reason_of(error)}); give the chain, signer first"
        ) from error
    if isinstance(key, ec.EllipticCurvePublicKey):
        sizes = {256: C2paSigningAlg.ES256, 384: C2paSigningAlg.ES384, 521: C2paSigningAlg.ES512}
        if key.curve.key_size in sizes:
            return sizes[key.curve.key_size]
    elif isinstance(key, ed25519.Ed25519PublicKey):
        return C2paSigningAlg.ED25519
    elif isinstance(key, rsa.RSAPublicKey):
        return C2paSigningAlg.PS256
    raise UsageError(
        "--certificate: a key of a kind that C2PA does not allow; use EC P-256, P-384, P-521, Ed25519 or RSA"
    )


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise UsageError(
            "Content Credentials need a library that is not installed; pip install 'colorize-archive[c2pa]'"
        ) from error
    return c2pa


@contextmanager
def _content(picture: Path) -> Iterator[BinaryIO]:
    """What is signed of a picture: its bytes, or of a folder the list of its files."""
    if picture.is_dir():
        yield io.BytesIO(tree_list(picture))
        return
    with open_file(picture) as stream:
        yield stream


@contextmanager
def _parent(scan: Path | None, record: Mapping[str, Any]) -> Iterator[BinaryIO]:
    if scan is not None and scan.is_file():
        with open_file(scan) as stream:
            yield stream
    else:
        yield io.BytesIO(json.dumps(record, sort_keys=True).encode())


def _cannot_embed(c2pa: Any) -> tuple[type[Exception], ...]:
    """Errors of the library that are of the file: it is of no kind that it takes, or cannot be taken apart.

    Of certificate, key, signing program and time stamp it says ``Signature``.
    """
    return c2pa.C2paError.NotSupported, c2pa.C2paError.Other, c2pa.C2paError.Io


class _Watched:
    """Passes a stream on to the library, which swallows what goes wrong with it, and keeps that."""

    def __init__(self, stream: BinaryIO | io.RawIOBase) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def _do(self, name: str, *given: Any) -> Any:
        try:
            return getattr(self._stream, name)(*given)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a place before the file, which a damaged file leads to
                self.error = error
            raise

    def read(self, size: int = -1, /) -> bytes:
        return bytes(self._do("read", size))

    def readinto(self, buffer: Any, /) -> int:
        return int(self._do("readinto", buffer))

    def write(self, data: Any, /) -> int:
        return int(self._do("write", data))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._do("seek", offset, whence))

    def tell(self) -> int:
        return int(self._do("tell"))

    def flush(self) -> None:
        self._do("flush")


class _Nowhere(io.RawIOBase):
    """Takes the copy of the picture that the library makes although nothing is put into it, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._at = self._end = 0

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        count = memoryview(data).nbytes
        self._at += count
        self._end = max(self._end, self._at)
        return count

    def readinto(self, buffer: Any, /) -> int:
        return 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at
