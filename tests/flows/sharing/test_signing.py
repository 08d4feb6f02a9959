"""Content Credentials of every format: whole, tampered with, expired, of a stranger; and what they say."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import c2pa
import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.sharing.signing import sign_results
from pipeline.errors import UsageError
from pipeline.formats import FORMATS
from pipeline.results.credentials import Signing, check_credentials, credential_of
from pipeline.results.decisions import decide
from pipeline.results.sidecar import Sidecar
from pipeline.results.verify import verify
from pipeline.results.versions import ResultPaths
from tests.certificates import Signer, signer
from tests.results import SPEC, make_result

FLIPS = 40


@pytest.fixture(scope="module")
def archive() -> Signer:
    return signer()


@pytest.fixture(scope="module")
def signed(archive: Signer, tmp_path_factory: pytest.TempPathFactory) -> ResultPaths:
    """A result in all formats, approved and signed."""
    paths = make_result(tmp_path_factory.mktemp("signed") / "colour", "plate", formats=tuple(FORMATS))
    decide(paths.sidecar, "approve", "A. Reviewer")
    signing = Signing(archive.chain, archive.key)
    before = {name: size(paths.picture(name)) for name in FORMATS}
    (step,) = sign_results(paths.store.parent, signing, "negativeFilm", True, False)
    assert step.state == "new"
    assert {name: size(paths.picture(name)) for name in FORMATS} == before
    assert [step.state for step in sign_results(paths.store.parent, signing, "negativeFilm", True, False)] == ["same"]
    return paths


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*")) if path.is_dir() else path.stat().st_size


def sha256_of(paths: ResultPaths, name: str) -> str:
    return Sidecar.read(paths.sidecar).pictures[name].sha256


@pytest.mark.parametrize("name", list(FORMATS))
def test_each_format_is_signed_and_trusted_with_the_authority(name, signed, archive):
    finding = check_credentials(signed.picture(name), sha256_of(signed, name), archive.root)
    assert finding is not None
    assert (finding.state, finding.signer, finding.reason) == ("trusted", "City Archive", "")
    assert finding.told["model"] == "default"
    assert finding.told["model_sha256"] == SPEC.model_sha256
    assert finding.told["approved_by"] == ["A. Reviewer"]
    assert finding.told["scan_sha256"] == Sidecar.read(signed.sidecar).source.sha256
    assert finding.told["scan_source_type"].endswith("/negativeFilm")


def test_the_library_alone_reads_them_and_finds_parent_action_and_source_type(signed):
    with signed.picture("jpeg").open("rb") as stream:
        data = credential_of(signed.picture("jpeg")).read_bytes()
        reader = c2pa.Reader("image/jpeg", stream, data)
    manifest = reader.get_active_manifest()
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == ("plate.png", "parentOf")
    (actions,) = [each["data"]["actions"] for each in manifest["assertions"] if "actions" in each["label"]]
    assert [each["action"] for each in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert len(data) < 20_000


@pytest.mark.parametrize("name", list(FORMATS))
def test_each_flipped_byte_of_a_picture_is_found(name, signed, archive, tmp_path):
    picture = signed.picture(name)
    copy = tmp_path / picture.name
    (shutil.copytree if picture.is_dir() else shutil.copyfile)(picture, copy)
    shutil.copyfile(credential_of(picture), credential_of(copy))
    chance = random.Random(name)
    files = [each for each in copy.rglob("*") if each.is_file()] if copy.is_dir() else [copy]
    for _ in range(FLIPS // 4 if copy.is_dir() else FLIPS):
        file = chance.choice(files)
        whole = bytearray(file.read_bytes())
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        whole[at] ^= bit
        file.write_bytes(whole)
        finding = check_credentials(copy, sha256_of(signed, name), archive.root)
        assert finding is not None
        assert finding.state == "tampered", (file, at)
        whole[at] ^= bit
        file.write_bytes(whole)
    finding = check_credentials(copy, sha256_of(signed, name), archive.root)
    assert finding is not None
    assert finding.state == "trusted"


def test_a_statement_that_was_changed_is_tampered_with(signed, archive, tmp_path):
    copy = tmp_path / signed.picture("png").name
    shutil.copyfile(signed.picture("png"), copy)
    data = credential_of(signed.picture("png")).read_bytes()
    assert data.count(b"A. Reviewer") == 1
    credential_of(copy).write_bytes(data.replace(b"A. Reviewer", b"B. Reviewer"))
    finding = check_credentials(copy, sha256_of(signed, "png"), archive.root)
    assert finding is not None
    assert finding.state == "tampered"
    credential_of(copy).write_bytes(b"nothing")
    assert str(check_credentials(copy, "", archive.root)).startswith("Content Credentials: tampered (cannot be read")


def test_strangers_the_expired_and_the_older_are_told_apart(tmp_path):
    output = tmp_path / "colour"
    paths = make_result(output, "a", formats=("png",))
    picture = paths.picture("png")
    short, other = signer("Short"), signer("Other")
    list(sign_results(output, Signing(short.chain, short.key), "", False, True))

    def state(root: str) -> str:
        finding = check_credentials(picture, sha256_of(paths, "png"), root)
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
    finding = check_credentials(paths.picture("png"), sha256_of(paths, "png"), brief.root)
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
    finding = check_credentials(paths.picture("png"), sha256_of(paths, "png"), archive.root)
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
    credential = credential_of(paths.picture("png"))
    credential.write_bytes(credential.read_bytes().replace(b"default", b"another"))
    ran = CliRunner().invoke(app, ["verify", str(paths.sidecar), "--trust", str(tmp_path / "root.pem"), "--json"])
    (told,) = json.loads(ran.stdout)["certificates"]
    assert "tampered" in " ".join(told["problems"])
    assert ran.exit_code == 1
