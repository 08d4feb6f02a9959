"""What may no longer go out is withdrawn from among the results: copies that are served to others, and signatures.

A rule of ``policy.yaml`` may come later than the pictures, and so may a person's rejection. Only what is made for
others goes (``--format iiif``, Content Credentials); it can be made again from what stays: the store, the pictures for
the house, and the sidecar, which forgets what is gone. Each withdrawal is a file, ``runs/withdrawn/TIME-ID.json``, with
a PREMIS event.

A kill loses nothing: what goes is first renamed, which takes it out of sight, and removed last; the next run goes on.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
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
from pipeline.metadata.provenance import premis_withdrawal
from pipeline.results.credentials import CREDENTIAL_ENDING
from pipeline.results.decisions import read_decisions
from pipeline.results.policy import Policy
from pipeline.results.release import may_go_out
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar, sidecar_of
from pipeline.results.version_names import without_version
from pipeline.results.versions import ResultPaths
from pipeline.support.files import remove, walk, write_json, writing
from pipeline.support.names import shown

FOLDER = Path(RECORDS, "withdrawn")
FORMAT = 1
# As the names of pictures that are being written, so that `clean` knows what a killed withdrawal left.
PART = ".part"
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
    """

    sidecar: Path
    stem: str
    version: str
    source_sha256: str
    reason: str
    paths: tuple[Path, ...]

    @property
    def line(self) -> str:
        """What was withdrawn and why, for people."""
        return shown(f"{self.reason}: {', '.join(path.name for path in self.paths)} removed")

    def to_json(self) -> dict[str, Any]:
        return {
            "scan": self.stem,
            "version": self.version,
            "source_sha256": self.source_sha256,
            "removed": [path.name for path in self.paths],
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
        if ours and not verdict:
            sha256 = sidecar.whole_source.sha256
            found.append(Withdrawal(path, stem, sidecar.version, sha256, verdict.reason, ours))
    return found


def _sidecar_for(path: Path) -> Sidecar | None:
    """The sidecar at ``path``; where an export was killed before it wrote that, another one of the same scan."""
    paths = ResultPaths.of(path.parent, without_version(path.name.removesuffix(SIDECAR_ENDING)))
    if (own := Sidecar.find(path)) is not None:
        return own
    return next((found for each in (paths, *paths.all_versions()) if (found := Sidecar.find(each.sidecar))), None)


def _copies(output: Path) -> dict[Path, set[Path]]:
    """Copies for others, by their sidecars; those whose withdrawal was interrupted under the names that they had."""
    found: dict[Path, set[Path]] = {}
    for parent, folders, files in walk(output):
        places = [name for name in folders if name.removesuffix(PART).endswith(_PUBLIC_ENDINGS)]
        places += [name for name in files if name.removesuffix(PART).endswith(CREDENTIAL_ENDING)]
        for name in places:
            path = parent / name.removesuffix(PART)
            if (sidecar := sidecar_of(path.with_name(path.name.removesuffix(CREDENTIAL_ENDING)))) is not None:
                found.setdefault(sidecar, set()).add(path)
        skipped = (*STORE_ENDINGS, *FOLDER_ENDINGS, PART)
        others = (RECORDS, THUMBNAILS) if parent == output else ()
        folders[:] = [name for name in folders if not name.endswith(skipped) and name not in others]
    return found


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
    found = find_withdrawals(output)
    for each in found:
        _withdraw(output, each, by)
        warn(each.line, "withdrawn")
    if found and (output / FILE).is_file():
        with _never_failing(), Catalogue.open(output, is_locked=True) as catalogue:
            for stem in sorted({each.stem for each in found}):
                catalogue.look_again(stem)
    return found


def _withdraw(output: Path, each: Withdrawal, by: str) -> None:
    with writing(each.sidecar):
        for path in each.paths:
            if path.exists():
                remove(_away(path))
                path.rename(_away(path))
    _record(output, each, by)
    if (sidecar := Sidecar.find(each.sidecar)) is not None:
        rest = {name: picture for name, picture in sidecar.pictures.items() if name not in _formats(each)}
        if len(rest) < len(sidecar.pictures):
            write_json(each.sidecar, replace(sidecar, pictures=rest).to_json())
    with writing(each.sidecar):
        for path in each.paths:
            remove(_away(path))


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
