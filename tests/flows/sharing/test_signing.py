"""Content Credentials of every format: whole, tampered with, expired, of a stranger; and what they say."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shlex
import shutil
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import c2pa
import cv2
import imagecodecs
import numpy as np
import pytest
import pyvips
import rasterio
import tifffile
from PIL import Image
from typer.testing import CliRunner

from flows.cli.app import app
from flows.sharing.signing import sign_results
from pipeline.errors import UsageError
from pipeline.formats import FORMATS
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.results.credentials import Signing, check_credentials, credential_of
from pipeline.results.decisions import decide
from pipeline.results.sidecar import PictureRecord, Sidecar
from pipeline.results.verify import verify
from pipeline.results.versions import ResultPaths
from pipeline.support.files import file_sha256, write_json
from tests import timestamps
from tests.certificates import Signer, signer
from tests.results import SPEC, make_result
from tests.stops import stopped_anywhere

FLIPS = 40


@pytest.fixture(scope="module")
def archive() -> Signer:
    return signer()


EMBEDDED = {"tiff", "jpeg", "png"}


@pytest.fixture(scope="module", params=[True, False], ids=["embedded", "beside"])
def signed(request: pytest.FixtureRequest, archive: Signer, tmp_path_factory: pytest.TempPathFactory) -> ResultPaths:
    """A result in all formats, approved and signed."""
    paths = make_result(tmp_path_factory.mktemp("signed") / "colour", "plate", formats=tuple(FORMATS))
    decide(paths.sidecar, "approve", "A. Reviewer")
    signing = Signing(archive.chain, archive.key)
    before = {name: size(paths.picture(name)) for name in FORMATS}
    for state in ("new", "same"):
        (step,) = sign_results(paths.store.parent, signing, "negativeFilm", True, False, request.param)
        assert step.state == state
    larger = {name for name in FORMATS if size(paths.picture(name)) != before[name]}
    assert larger == (EMBEDDED if request.param else set())
    assert {name for name in FORMATS if not credential_of(paths.picture(name)).exists()} == larger
    assert not list(paths.store.parent.glob("*.part"))
    return paths


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*")) if path.is_dir() else path.stat().st_size


def record_of(paths: ResultPaths, name: str) -> PictureRecord:
    return Sidecar.read(paths.sidecar).pictures[name]


@pytest.mark.parametrize("name", list(FORMATS))
def test_each_format_is_signed_and_trusted_with_the_authority(name, signed, archive):
    finding = check_credentials(signed.picture(name), record_of(signed, name), archive.root)
    assert finding is not None
    assert (finding.state, finding.signer, finding.reason) == ("trusted", "City Archive", "")
    assert finding.told["model"] == "default"
    assert finding.told["model_sha256"] == SPEC.model_sha256
    assert finding.told["approved_by"] == ["A. Reviewer"]
    assert finding.told["scan_sha256"] == Sidecar.read(signed.sidecar).source.sha256
    assert finding.told["scan_source_type"].endswith("/negativeFilm")


def test_the_library_alone_reads_them_and_finds_parent_action_and_source_type(signed):
    credential = credential_of(signed.picture("jpeg"))
    data = credential.read_bytes() if credential.exists() else None
    with signed.picture("jpeg").open("rb") as stream:
        reader = c2pa.Reader("image/jpeg", stream, *([] if data is None else [data]))
    assert reader.is_embedded() is (data is None)
    manifest = reader.get_active_manifest()
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == ("plate.png", "parentOf")
    (actions,) = [each["data"]["actions"] for each in manifest["assertions"] if "actions" in each["label"]]
    assert [each["action"] for each in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert record_of(signed, "jpeg").signature.size_bytes < 20_000


@pytest.mark.parametrize("name", list(FORMATS))
def test_each_flipped_byte_of_picture_and_credentials_is_found(name, signed, archive, tmp_path):
    picture, record = signed.picture(name), record_of(signed, name)
    copy = tmp_path / picture.name
    (shutil.copytree if picture.is_dir() else shutil.copyfile)(picture, copy)
    files = [each for each in copy.rglob("*") if each.is_file()] if copy.is_dir() else [copy]
    if not record.signature.is_embedded:
        shutil.copyfile(credential_of(picture), credential_of(copy))
        files.append(credential_of(copy))
    chance = random.Random(name)
    for _ in range(FLIPS // 4 if copy.is_dir() else FLIPS):
        file = chance.choice(files)
        whole = bytearray(file.read_bytes())
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        whole[at] ^= bit
        file.write_bytes(whole)
        finding = check_credentials(copy, record, archive.root)
        assert finding is not None
        assert finding.state == "tampered", (file, at)
        whole[at] ^= bit
        file.write_bytes(whole)
    finding = check_credentials(copy, record, archive.root)
    assert finding is not None
    assert finding.state == "trusted"


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_a_signed_picture_is_read_by_others_as_before(name, archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "plate", shape_yx=(700, 600), formats=(name,), dtype="uint8", orientation=6)
    picture, before = paths.picture(name), record_of(paths, name)
    shutil.copy(picture, tmp_path / "before")
    list(sign_results(output, Signing(archive.chain, archive.key), "", False, True))
    for read in READERS:
        assert np.array_equal(read(picture), read(tmp_path / "before")), read
    (whole,) = verify(paths.sidecar, archive.root)
    assert (whole.passes, whole.signed) == (True, "Content Credentials by City Archive: trusted")
    after = record_of(paths, name)
    assert (after.bytes, after.sha256) == (picture.stat().st_size, file_sha256(picture))
    assert after.signature.unsigned_sha256 == before.sha256
    # By hand: cut the piece out, put back what was overwritten.
    data, told = bytearray(picture.read_bytes()), after.signed
    for offset, was in told["patches"]:
        data[offset : offset + 1] = bytes.fromhex(was)
    del data[told["start"] : told["start"] + told["size_bytes"]]
    assert data == (tmp_path / "before").read_bytes()


READERS = (
    lambda path: tifffile.imread(path, level=1) if path.read_bytes()[:2] == b"II" else cv2.imread(str(path)),
    lambda path: tifffile.imread(path) if path.read_bytes()[:2] == b"II" else iio_read(path),
    lambda path: pyvips.Image.new_from_file(str(path)).numpy(),
    lambda path: np.asarray(Image.open(path)),
    lambda path: rasterio_read(path),
)


def iio_read(path: Path) -> np.ndarray:
    data = path.read_bytes()
    return imagecodecs.png_decode(data) if data[:2] != b"\xff\xd8" else imagecodecs.jpeg_decode(data)


def rasterio_read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            assert len(source.subdatasets) == 0
            return source.read()


def test_credentials_move_between_picture_and_its_side_and_the_picture_comes_back(archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png", "tiff"))
    before = {name: paths.picture(name).read_bytes() for name in ("png", "tiff")}
    signing = Signing(archive.chain, archive.key)
    for embeds, says in ((True, ""), (True, "print"), (False, "print"), (True, "print"), (False, "")):
        (step,) = sign_results(output, signing, says, False, True, embeds)
        assert step.state == "new"
        for name, data in before.items():
            finding = check_credentials(paths.picture(name), record_of(paths, name), archive.root)
            assert finding is not None
            assert finding.state == "trusted"
            assert finding.told.get("scan_source_type", "").endswith(says)
            assert (paths.picture(name).read_bytes() == data) is not embeds
            assert credential_of(paths.picture(name)).exists() is not embeds
            signature = record_of(paths, name).signature
            assert hashlib.sha256(data).hexdigest() == signature.unsigned_sha256
    assert all(each.passes for each in verify(paths.sidecar, archive.root))


def test_a_picture_without_its_credentials_is_the_one_that_was_written(archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    picture, signing = paths.picture("png"), Signing(archive.chain, archive.key)
    before = picture.read_bytes()
    list(sign_results(output, signing, "", False, True))
    picture.write_bytes(before)  # as after a stop between sidecar and picture
    (told,) = verify(paths.sidecar)
    assert told.problems == (
        "Content Credentials: missing (the picture is as it was before it was signed; sign it again)",
    )
    (step,) = sign_results(output, signing, "", False, True)
    assert step.state == "new"
    assert verify(paths.sidecar)[0].passes
    picture.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert "its bytes are not those that were written" in verify(paths.sidecar)[0].problems
    (step,) = sign_results(output, signing, "", False, True)
    assert step.state == "failed"


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_signing_again_can_be_stopped_anywhere(before, after, archive, tmp_path, monkeypatch):
    paths = make_result(tmp_path / "first", "a", formats=("png",))
    signing = Signing(archive.chain, archive.key)
    list(sign_results(tmp_path / "first", signing, "", False, True, before))

    def again(output):
        return [step.state for step in sign_results(output, signing, "print", False, True, after)]

    for output, _ in stopped_anywhere(tmp_path / "first", monkeypatch, again):
        (told,) = verify(output / paths.sidecar.name, archive.root)
        assert all("sign it again" in problem for problem in told.problems), (output, told.problems)
        assert again(output) != ["failed"]
        assert verify(output / paths.sidecar.name, archive.root)[0].passes


def test_what_fails_once_keeps_no_credentials_out_of_the_picture(archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    with pytest.raises(UsageError, match="could not be signed"):
        list(sign_results(output, Signing(archive.chain, command="false"), "", False, True))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as if the disk was full
    try:
        (step,) = sign_results(output, Signing(archive.chain, archive.key), "", False, True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (step.state, "disk full" in step.reason, ".part" in step.reason) == ("failed", True, False)
    assert not record_of(paths, "png").signed
    assert not list(output.glob("*.part"))
    (step,) = sign_results(output, Signing(archive.chain, archive.key), "", False, True)
    assert (step.state, record_of(paths, "png").signature.place) == ("new", "embedded")


def test_bigtiff_with_subifds_is_signed_beside(archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a")
    picture = paths.picture("tiff")
    samples = tifffile.imread(picture)
    with tifffile.TiffWriter(picture, bigtiff=True) as writer:
        writer.write(samples, subifds=2, tile=(64, 64), compression="adobe_deflate")
        for step in (2, 4):
            writer.write(samples[::step, ::step], subfiletype=1, tile=(64, 64), compression="adobe_deflate")
    before = file_sha256(picture)
    sidecar = Sidecar.read(paths.sidecar)
    record = replace(record_of(paths, "tiff"), sha256=before, bytes=picture.stat().st_size)
    write_json(paths.sidecar, replace(sidecar, pictures={"tiff": record}).to_json())
    states = [
        step.state
        for _ in range(2)
        for step in sign_results(output, Signing(archive.chain, archive.key), "", False, True)
    ]
    assert states == ["new", "same"]
    assert file_sha256(picture) == before
    finding = check_credentials(picture, record_of(paths, "tiff"), archive.root)
    assert finding is not None
    assert finding.state == "trusted"


def test_a_statement_that_was_changed_is_tampered_with(signed, archive, tmp_path):
    picture, record = signed.picture("png"), record_of(signed, "png")
    copy = tmp_path / picture.name
    shutil.copyfile(picture, copy)
    if not record.signature.is_embedded:
        shutil.copyfile(credential_of(picture), credential_of(copy))
    changed = copy if record.signature.is_embedded else credential_of(copy)
    data = changed.read_bytes()
    assert data.count(b"A. Reviewer") == 1
    # Somebody who can write the sidecar, too, cannot sign.
    for told in (record, replace(record, signed={})):
        if not told.signed and changed == copy:
            continue
        changed.write_bytes(data.replace(b"A. Reviewer", b"B. Reviewer"))
        finding = check_credentials(copy, told, archive.root)
        assert finding is not None
        assert finding.state == "tampered"
    if changed != copy:
        changed.write_bytes(b"nothing")
        text = str(check_credentials(copy, PictureRecord(), archive.root))
        assert text.startswith("Content Credentials: tampered (cannot be read")


def test_strangers_the_expired_and_the_older_are_told_apart(tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    picture = paths.picture("png")
    short, other = signer("Short"), signer("Other")
    list(sign_results(output, Signing(short.chain, short.key), "", False, True, False))

    def state(root: str) -> str:
        finding = check_credentials(picture, record_of(paths, "png"), root)
        assert finding is not None
        return finding.state

    assert state(other.root) == state("") == "untrusted"
    make_result(output, "a", formats=("png",), spec=replace(SPEC, stride_yx=(64, 64)), seed=5)
    assert state(short.root) == "older"
    (step,) = sign_results(output, Signing(other.chain, other.key), "", False, True)
    assert step.state == "new"
    assert state(other.root) == "trusted"


def test_credentials_outlive_their_certificate_only_with_a_time_stamp(tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    for seconds in (3, 30):  # a busy machine needs the longer one
        brief, began = signer(seconds=seconds), time.monotonic()
        try:
            list(sign_results(output, Signing(brief.chain, brief.key), "", False, True))
            break
        except UsageError:
            continue
    time.sleep(max(0, seconds + 1 - (time.monotonic() - began)))
    finding = check_credentials(paths.picture("png"), record_of(paths, "png"), brief.root)
    assert finding is not None
    assert finding.state == "expired"


def test_a_certificate_that_has_expired_signs_nothing(tmp_path):
    output = tmp_path / "colour"
    make_result(output, "a", formats=("png",))
    expired = signer(seconds=-5)
    with pytest.raises(UsageError, match="not valid at time of signing"):
        list(sign_results(output, Signing(expired.chain, expired.key), "", False, True))


def test_a_program_can_sign_as_for_a_token(archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    (tmp_path / "key.pem").write_text(archive.key)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom cryptography.hazmat.primitives import hashes, serialization\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "key = serialization.load_pem_private_key(open(sys.argv[1], 'rb').read(), None)\n"
        "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read(), ec.ECDSA(hashes.SHA256())))\n"
    )
    command = shlex.join([sys.executable, str(program), str(tmp_path / "key.pem")])
    list(sign_results(output, Signing(archive.chain, command=command), "", False, True))
    finding = check_credentials(paths.picture("png"), record_of(paths, "png"), archive.root)
    assert finding is not None
    assert finding.state == "trusted"


def test_sign_verify_and_inspect_say_who_signed(archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    for name, text in (("chain", archive.chain), ("key", archive.key), ("root", archive.root)):
        (tmp_path / f"{name}.pem").write_text(text)
    words = ["sign", str(output), "--certificate", str(tmp_path / "chain.pem"), "--unreviewed"]
    neither = CliRunner().invoke(app, words)
    assert neither.exit_code == 2
    made = CliRunner().invoke(app, [*words, "--key", str(tmp_path / "key.pem")])
    assert made.exit_code == 0, made.output
    (whole,) = verify(paths.sidecar, archive.root)
    assert whole.signed == "Content Credentials by City Archive: trusted"
    inspected = CliRunner().invoke(app, ["inspect", str(paths.sidecar)])
    assert "Content Credentials by City Archive: untrusted" in inspected.output
    picture = paths.picture("png")
    picture.write_bytes(picture.read_bytes().replace(b"default", b"another"))
    ran = CliRunner().invoke(app, ["verify", str(paths.sidecar), "--trust", str(tmp_path / "root.pem"), "--json"])
    (told,) = json.loads(ran.stdout)["certificates"]
    assert "tampered" in " ".join(told["problems"])
    assert ran.exit_code == 1


@pytest.mark.skipif(not timestamps.IS_HERE, reason="openssl is not there")
def test_a_time_stamp_lets_credentials_outlive_their_certificate(tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png", "jp2"))
    (tmp_path / "ts").mkdir()
    with timestamps.authority(tmp_path / "ts") as stamps:
        for seconds in (3, 30):  # a busy machine needs the longer one
            brief, began = signer(seconds=seconds), time.monotonic()
            signing = Signing(brief.chain, brief.key, timestamp_url=stamps.url)
            try:
                list(sign_results(output, signing, "", False, True))
                break
            except UsageError:
                continue

    def states(trust: str) -> set[str]:
        records = {name: record_of(paths, name) for name in ("png", "jp2")}
        found = [check_credentials(paths.picture(name), record, trust) for name, record in records.items()]
        return {each.state for each in found if each is not None}

    time.sleep(max(0, seconds + 1 - (time.monotonic() - began)))
    assert states(brief.root + stamps.root) == {"trusted"}
    # A time stamp of an authority that nobody trusts is none.
    assert states(brief.root) == {"expired"}
    assert states(stamps.root) == {"untrusted"}
    assert states(signer("Other").root + stamps.root) == {"untrusted"}
    png, record = paths.picture("png"), record_of(paths, "png")
    whole = png.read_bytes()
    assert b"Time Stamps" in whole
    png.write_bytes(whole.replace(b"Time Stamps", b"Time Stumps"))
    finding = check_credentials(png, record, brief.root + stamps.root)
    assert finding is not None
    assert finding.state == "tampered"


def test_an_authority_that_does_not_answer_is_told(archive, tmp_path):
    output = tmp_path / "colour"
    make_result(output, "a", formats=("png",))
    signing = Signing(archive.chain, archive.key, timestamp_url="http://127.0.0.1:9/")
    with pytest.raises(UsageError, match="could not be signed") as told:
        list(sign_results(output, signing, "", False, True))
    assert "\n" not in str(told.value)
    assert not list(output.glob("*.part"))


XMP = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/%s"/></rdf:RDF>"""


@pytest.mark.parametrize(
    ("own", "option", "said"),
    [("positiveFilm", "", "positiveFilm"), ("positiveFilm", "print", "print"), ("trainedAlgorithmicMedia", "", "")],
)
def test_what_was_scanned_is_said_as_the_scan_or_the_option_tells_it(own, option, said, archive, tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",), embedded=EmbeddedMetadata(xmp=XMP % own.encode()))
    states = [
        step.state
        for _ in range(2)
        for step in sign_results(output, Signing(archive.chain, archive.key), option, False, True)
    ]
    assert states == ["new", "same"]
    finding = check_credentials(paths.picture("png"), record_of(paths, "png"), archive.root)
    assert finding is not None
    assert str(finding.told.get("scan_source_type", "")).rpartition("/")[2] == said
