"""Sign the results of a folder that may go out: each picture that is not signed yet, or is another one by now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.sharing.outgoing import Kept, Outgoing, results_of
from flows.sharing.site import Step
from pipeline.errors import ColorizeError, StoreError, UsageError
from pipeline.results.credentials import SCAN_TYPES, Signing, Statement, check_credentials, sign_picture
from pipeline.support.files import read_text, tree_sha256


def read_signing(certificate: Path, key: Path | None, command: str, timestamp_url: str) -> Signing:
    """Certificate and key from their files. Raises UsageError."""
    if (key is None) == (not command):
        raise UsageError(
            "give one of --key and --command: with neither nothing can be signed, with both it is not clear by what"
        )
    if timestamp_url and not timestamp_url.startswith(("http://", "https://")):
        raise UsageError(f"--timestamp {timestamp_url!r}: no address; give one like http://timestamp.example/")
    try:
        chain = read_text(certificate)
        return Signing(chain, read_text(key) if key is not None else "", command, timestamp_url)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{error}: certificate and key must be files in PEM") from error


def sign_results(
    output: Path, signing: Signing, scan_type: str, names_people: bool, unreviewed: bool
) -> Iterator[Step | Kept]:
    """Sign what may go out, one scan at a time.

    Raises UsageError if ``scan_type`` is none, or the library is missing.
    """
    if scan_type and scan_type not in SCAN_TYPES:
        raise UsageError(f"--scan-type {scan_type!r}: not known; give one of {', '.join(SCAN_TYPES)}")
    if not output.is_dir():
        raise UsageError(f"{output}: no folder, nothing to sign; give the --output of earlier runs")
    for found in results_of(output, unreviewed):
        if isinstance(found, Kept):
            yield found
            continue
        says = Statement(found.approved_by if names_people else (), scan_type)
        try:
            signed = [_sign(found, name, signing, says) for name in found.sidecar.pictures]
            yield Step("new" if any(signed) else "same", found.stem)
        except UsageError:
            raise
        except ColorizeError as error:
            yield Step("failed", found.stem, str(error))


def _sign(result: Outgoing, name: str, signing: Signing, says: Statement) -> bool:
    """Sign one picture, unless what is said of it is signed already; returns whether it was."""
    if name not in result.pictures:
        raise StoreError(f"{result.stem}: its {name} is not there any more; run it again")
    path, record = result.pictures[name]
    if tree_sha256(path) != record.sha256:
        raise StoreError(f"{path}: its bytes are not those that were recorded, and are not signed; run it again")
    # Who issued the certificate does not matter here: with what it was signed is for verify to say.
    before = check_credentials(path, record.sha256)
    if before is not None and before.state in ("trusted", "untrusted"):
        same_people = tuple(before.told.get("approved_by", ())) == says.approved_by
        scan_type = str(before.told.get("scan_source_type", "")).rpartition("/")[2]
        if same_people and scan_type == says.scan_type:
            return False
    scan = Path(result.source.path)
    is_whole = scan.is_file() and scan.stat().st_size == result.source.bytes
    sign_picture(path, result.sidecar, name, scan if is_whole else None, signing, says)
    return True
