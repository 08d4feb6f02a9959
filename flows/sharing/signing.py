"""Sign the results of a folder that may go out: each picture that is not signed yet, or is another one by now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flows.sharing.outgoing import Kept, Outgoing, results_of
from flows.sharing.site import Step
from pipeline.errors import ColorizeError, StoreError, UsageError
from pipeline.metadata.xmp import DIGITAL_SOURCE_TYPE, properties
from pipeline.results.credentials import (
    SCAN_TYPES,
    Signing,
    Statement,
    Wanted,
    check_content,
    check_credentials,
    sign_picture,
)
from pipeline.results.sidecar import PictureRecord
from pipeline.support.files import read_text, write_json


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


def check_signing(output: Path, scan_type: str) -> None:
    """Raises UsageError if there is no such folder, or ``scan_type`` is none."""
    if scan_type and scan_type not in SCAN_TYPES:
        raise UsageError(f"--scan-type {scan_type!r}: not known; give one of {', '.join(SCAN_TYPES)}")
    if not output.is_dir():
        raise UsageError(f"{output}: no folder, nothing to sign; give the --output of earlier runs")


def sign_results(
    output: Path, signing: Signing, scan_type: str, names_people: bool, unreviewed: bool, embeds: bool = True
) -> Iterator[Step | Kept]:
    """Sign what may go out, one scan at a time; the folder of results must be locked, for sidecars are changed.

    Parameters
    ----------
    embeds : put credentials into the pictures, where that can be done; else all lie beside them

    Raises UsageError as :func:`check_signing`, or if the library is missing.
    """
    check_signing(output, scan_type)
    for found in results_of(output, unreviewed):
        if isinstance(found, Kept):
            yield found
            continue
        says = Statement(found.approved_by if names_people else (), scan_type or _scan_type_of(found))
        try:
            states = []
            for name in found.sidecar.pictures:
                found, is_new = _sign(found, name, signing, says, embeds)
                states.append(is_new)
            yield Step("new" if any(states) else "same", found.stem)
        except UsageError:
            raise
        except ColorizeError as error:
            yield Step("failed", found.stem, str(error))


def _scan_type_of(result: Outgoing) -> str:
    """What was scanned, as the scan's own XMP tells it (IPTC's Digital Source Type); empty if it does not."""
    try:
        told = properties(result.embedded.xmp).get(DIGITAL_SOURCE_TYPE, "") if result.embedded.xmp else ""
    except ValueError:
        return ""
    return next((each for each in SCAN_TYPES if told.strip('"').endswith(f"/{each}")), "")


def _sign(result: Outgoing, name: str, signing: Signing, says: Statement, embeds: bool) -> tuple[Outgoing, bool]:
    """Sign one picture, unless what is said of it is signed already; the result then, and whether it was signed."""
    if name not in result.pictures:
        raise StoreError(f"{result.stem}: its {name} is not there any more; run it again")
    path, record = result.pictures[name]
    source = Path(result.source.path)
    is_whole = source.is_file() and source.stat().st_size == result.source.bytes
    wanted = Wanted(path, result.sidecar, name, source if is_whole else None, embeds)
    check_content(path, record)
    if _says_so(wanted, says):
        return result, False
    made = result

    def write(record: PictureRecord) -> None:
        nonlocal made
        sidecar = replace(result.sidecar, pictures={**result.sidecar.pictures, name: record})
        write_json(result.paths.sidecar, sidecar.to_json())
        made = replace(result, sidecar=sidecar)

    sign_picture(wanted, signing, says, write)
    return made, True


def _says_so(wanted: Wanted, says: Statement) -> bool:
    """True if a picture has credentials in that place that say the same, by whomever."""
    signature = wanted.record.signature
    if signature is None or (not signature.is_embedded and wanted.media_type and not signature.tried):
        return False
    if signature.is_embedded and not wanted.media_type:
        return False
    finding = check_credentials(wanted.picture, wanted.record)
    if finding is None or finding.state not in ("trusted", "untrusted"):
        return False
    same_people = tuple(finding.told.get("approved_by", ())) == says.approved_by
    scan_type = str(finding.told.get("scan_source_type", "")).rpartition("/")[2]
    return same_people and scan_type == says.scan_type
