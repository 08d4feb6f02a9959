"""What may no longer go out is withdrawn from among the results: copies that are served to others, and signatures.

A rule of ``policy.yaml`` may come later than the pictures, and so may a person's rejection. Only what is made for
others goes (``--format iiif``, Content Credentials beside pictures and in them); it can be made again from what stays:
the store, the pictures for the house, byte for byte as they were before they were signed, and the sidecar, which
forgets what is gone. Each withdrawal is a file, ``runs/withdrawn/TIME-ID.json``, with a PREMIS event.

A kill loses nothing: what goes is first renamed, which takes it out of sight, and removed last; the next run goes on.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.catalogue.database import FILE, Catalogue
from flows.events import warn
from flows.inputs import RECORDS, STORE_ENDINGS, THUMBNAILS
from flows.run.policy_gate import PUBLIC_FORMATS
from pipeline.endings import FORMAT_FOLDERS as FOLDER_ENDINGS
from pipeline.endings import FORMATS as ENDINGS
from pipeline.errors import StoreError
from pipeline.metadata.provenance import premis_withdrawal
from pipeline.results.credentials import CREDENTIAL_ENDING, credential_of, unsign_picture
from pipeline.results.decisions import DECISION_ENDING, read_decisions
from pipeline.results.policy import POLICY_FILE, Policy
from pipeline.results.release import may_go_out
from pipeline.results.sidecar import SIDECAR_ENDING, PictureRecord, Sidecar, sidecar_of
from pipeline.results.version_names import without_version
from pipeline.results.versions import ResultPaths
from pipeline.support.files import remove, walk, write_json, writing
from pipeline.support.names import shown

FOLDER = Path(RECORDS, "withdrawn")
FORMAT = 1
# As the names of pictures that are being written, so that `clean` knows what a killed withdrawal left.
PART = ".part"
# In the sidecar of a picture that has its credentials in it.
_EMBEDDED = b'"embedded"'
_PUBLIC_ENDINGS = tuple(ENDINGS[name] for name in PUBLIC_FORMATS)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Withdrawal:
    """Copies of one version that may no longer go out.

    Attributes
    ----------
    sidecar : path of the version's sidecar
    stem : path of the result below the output folder, without ending
    version, source_sha256 : whose colours, of which scan file
    reason : one line, which begins with the stem
    paths : the copies, as they are called when they are in their place
    signed : the pictures that stay, without the credentials that are in them
    """

    sidecar: Path
    stem: str
    version: str
    source_sha256: str
    reason: str
    paths: tuple[Path, ...]
    signed: tuple[Path, ...] = ()

    @property
    def line(self) -> str:
        """What was withdrawn and why, for people."""
        return shown(f"{self.reason}: {', '.join(self.removed)} removed")

    @property
    def removed(self) -> list[str]:
        """What goes, by its names."""
        inside = [f"Content Credentials in {path.name}" for path in self.signed]
        return [*(path.name for path in self.paths), *inside]

    def to_json(self) -> dict[str, Any]:
        return {
            "scan": self.stem,
            "version": self.version,
            "source_sha256": self.source_sha256,
            "removed": self.removed,
            "reason": self.reason,
        }


def find_withdrawals(output: Path) -> list[Withdrawal]:
    """What may no longer go out, in the order of its names. Writes nothing.

    Raises UsageError for a policy with a mistake.
    """
    copies = _copies(output)
    if not copies:
        return []
    policy, decisions = Policy.read(output), read_decisions(output)
    found = []
    for path, theirs in sorted(copies.items()):
        sidecar = _sidecar_for(path)
        if sidecar is None or sidecar.version is None or sidecar.whole_source is None:
            continue  # nothing says whose copies these are
        name = path.name.removesuffix(SIDECAR_ENDING).removesuffix(f".{sidecar.version}")
        name = name if sidecar.path == path else without_version(name)
        stem = (path.parent.relative_to(output) / name).as_posix()
        verdict = may_go_out(sidecar, decisions.get(stem, ()), policy, stem=stem, unreviewed=True)
        ours = tuple(each for each in sorted(theirs) if _is_ours(each, sidecar))
        signed = tuple(_signed(sidecar)) if sidecar.path == path else ()
        if (ours or signed) and not verdict:
            sha256 = sidecar.whole_source.sha256
            found.append(Withdrawal(path, stem, sidecar.version, sha256, verdict.reason, ours, signed))
    return found


def forbidden_of(output: Path, stems: Iterable[str]) -> list[str]:
    """Those of the scans of which a version may not go out, in order. Raises UsageError for a policy with a mistake."""
    policy, decisions = Policy.read(output), read_decisions(output)

    def may_go(stem: str, sidecar: Sidecar) -> bool:
        return bool(may_go_out(sidecar, decisions.get(stem, ()), policy, stem=stem, unreviewed=True))

    found = []
    for stem in sorted(stems):
        paths = ResultPaths.of(output, stem)
        sidecars = filter(None, (Sidecar.find(each.sidecar) for each in (paths, *paths.all_versions())))
        if not all(may_go(stem, sidecar) for sidecar in sidecars):
            found.append(stem)
    return found


def _sidecar_for(path: Path) -> Sidecar | None:
    """The sidecar at ``path``; where an export was killed before it wrote that, another one of the same scan."""
    paths = ResultPaths.of(path.parent, without_version(path.name.removesuffix(SIDECAR_ENDING)))
    if (own := Sidecar.find(path)) is not None:
        return own
    return next((found for each in (paths, *paths.all_versions()) if (found := Sidecar.find(each.sidecar))), None)


def _signed(sidecar: Sidecar) -> Iterator[Path]:
    """The pictures of a sidecar that have credentials in them."""
    for name, record in sidecar.pictures.items():
        path = _picture(sidecar, name)
        if record.signature is not None and record.signature.is_embedded and path is not None and path.is_file():
            yield path


def _picture(sidecar: Sidecar, name: str) -> Path | None:
    """The path of a sidecar's picture, by its format; None if that is not known."""
    if sidecar.path is None or name not in ENDINGS:
        return None
    return sidecar.path.with_name(sidecar.path.name.removesuffix(SIDECAR_ENDING) + ENDINGS[name])


def _copies(output: Path) -> dict[Path, set[Path]]:
    """Copies for others, by their sidecars; those whose withdrawal was interrupted under the names that they had.

    With none there are the sidecars of pictures with credentials in them. They are looked for where there is a policy,
    or a decision on the scan: nothing else withdraws.
    """
    found: dict[Path, set[Path]] = {}
    has_policy = (output / POLICY_FILE).exists()
    for parent, folders, files in walk(output):
        places = [name for name in folders if name.removesuffix(PART).endswith(_PUBLIC_ENDINGS)]
        places += [name for name in files if name.removesuffix(PART).endswith(CREDENTIAL_ENDING)]
        for name in places:
            path = parent / name.removesuffix(PART)
            if (sidecar := sidecar_of(path.with_name(path.name.removesuffix(CREDENTIAL_ENDING)))) is not None:
                found.setdefault(sidecar, set()).add(path)
        decisions = (name.removesuffix(DECISION_ENDING) for name in files if name.endswith(DECISION_ENDING))
        decided = {name.rpartition(".")[0] for name in decisions}
        for name in files if has_policy or decided else ():
            start = name.removesuffix(SIDECAR_ENDING)
            is_asked = has_policy or not decided.isdisjoint((start, without_version(start)))
            if start != name and is_asked and _says_embedded(parent / name):
                found.setdefault(parent / name, set())
        skipped = (*STORE_ENDINGS, *FOLDER_ENDINGS, PART)
        others = (RECORDS, THUMBNAILS) if parent == output else ()
        folders[:] = [name for name in folders if not name.endswith(skipped) and name not in others]
    return found


def _says_embedded(sidecar: Path) -> bool:
    """True if a sidecar may be of a picture with credentials in it; without taking it apart, for there are many."""
    try:
        return _EMBEDDED in sidecar.read_bytes()
    except OSError:
        return False


def _is_ours(path: Path, sidecar: Sidecar) -> bool:
    """True for credentials, a picture that the sidecar lists, and what a kill left: the rest may be somebody else's.

    An export that is killed when its tiles are in their place and its sidecar is not leaves tiles that none lists.
    """
    formats = [name for name in PUBLIC_FORMATS if path.name.endswith(ENDINGS[name])]
    is_listed = not formats or any(name in sidecar.pictures for name in formats)
    return is_listed or not path.exists() or (path / "info.json").is_file()


def withdraw(output: Path, by: str) -> list[Withdrawal]:
    """Withdraw what may no longer go out, and say so in a line each. The folder must be locked.

    Parameters
    ----------
    by : the command that does it, for the record

    Raises
    ------
    UsageError : the policy has a mistake. OutputError : something cannot be renamed, removed or recorded.
    """
    found = [made for each in find_withdrawals(output) if (made := _withdraw(output, each, by)) is not None]
    if found and (output / FILE).is_file():
        with _never_failing(), Catalogue.open(output, is_locked=True) as catalogue:
            for stem in sorted({each.stem for each in found}):
                catalogue.look_again(stem)
    return found


def _withdraw(output: Path, asked: Withdrawal, by: str) -> Withdrawal | None:
    """Withdraw what is asked for; what was withdrawn, None if that is nothing.

    The sidecar comes after the pictures: one that says "embedded" knows a picture without credentials, too.
    """
    with writing(asked.sidecar):
        for path in asked.paths:
            if path.exists():
                remove(_away(path))
                path.rename(_away(path))
    unsigned = dict(_unsigned(asked))
    each = replace(asked, signed=tuple(path for path in asked.signed if path in unsigned))
    if not each.removed:
        return None
    _record(output, each, by)
    if (sidecar := Sidecar.find(each.sidecar)) is not None:
        rest = {
            name: _forgotten(record, _picture(sidecar, name), each, unsigned)
            for name, record in sidecar.pictures.items()
            if name not in _formats(each)
        }
        if rest != sidecar.pictures:
            write_json(each.sidecar, replace(sidecar, pictures=rest).to_json())
    with writing(each.sidecar):
        for path in each.paths:
            remove(_away(path))
    warn(each.line, "withdrawn")
    return each


def _unsigned(each: Withdrawal) -> Iterator[tuple[Path, PictureRecord]]:
    """Take the credentials out of pictures; their paths and new records. One that cannot be told apart is left."""
    sidecar = Sidecar.find(each.sidecar)
    if sidecar is None:
        return
    for name, record in sidecar.pictures.items():
        path = _picture(sidecar, name)
        if path is None or path not in each.signed:
            continue
        try:
            yield path, unsign_picture(path, record)
        except StoreError as error:
            warn(f"{error}; {each.reason}, and its credentials could not be taken out")


def _forgotten(
    record: PictureRecord, path: Path | None, each: Withdrawal, unsigned: dict[Path, PictureRecord]
) -> PictureRecord:
    """The record of a picture that stays, without the credentials that go."""
    if path is None:
        return record
    if path in unsigned:
        return unsigned[path]
    signature = record.signature
    is_gone = credential_of(path) in each.paths and not (signature is not None and signature.is_embedded)
    return replace(record, signed={}) if is_gone else record


def _away(path: Path) -> Path:
    return path.with_name(f"{path.name}{PART}")


def _formats(each: Withdrawal) -> set[str]:
    return {name for name in PUBLIC_FORMATS for path in each.paths if path.name.endswith(ENDINGS[name])}


def _record(output: Path, each: Withdrawal, by: str) -> None:
    now = datetime.now(UTC)
    when, identifier = now.isoformat(timespec="microseconds"), uuid.uuid4().hex[:8]
    path = output / FOLDER / f"{now:%Y%m%dT%H%M%S%fZ}-{identifier}.json"
    told = each.to_json()
    agent = f"colorize-archive {version('colorize-archive')}"
    event = premis_withdrawal(when, each.reason, agent, told["removed"], (each.version, each.source_sha256))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": FORMAT, "when": when, "by": by, **told, "premis": event})


@contextlib.contextmanager
def _never_failing() -> Iterator[None]:
    """The catalogue can be made anew from the sidecars: a problem with it is for the log."""
    try:
        yield
    except Exception:
        _log.warning("the catalogue does not know of a withdrawal", exc_info=True)
