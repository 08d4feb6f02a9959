"""Where ``policy.yaml`` stops a run: scans that are never coloured, and pictures for others that may not go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flows.events import warn
from flows.inputs import ScanFile
from flows.options import RunOptions
from flows.outcome import ScanOutcome
from pipeline.results.decisions import decisions_beside
from pipeline.results.policy import KEYWORDS, NUMBERS, Policy, Rule, Subject, terms_of
from pipeline.results.release import verdict_of
from pipeline.results.sidecar import Sidecar
from pipeline.results.versions import ResultPaths
from pipeline.store import ScanStore
from pipeline.support.names import shown

# Formats whose pictures are there to be served to others.
PUBLIC_FORMATS = ("iiif",)
Terms = Mapping[str, list[str]]


def subject_of(scan: ScanFile, terms: Terms | None = None) -> Subject:
    """The scan as a policy knows it; keywords and numbers are not known without ``terms``."""
    found = terms or {}
    keywords, numbers = (tuple(found[name]) if name in found else None for name in (KEYWORDS, NUMBERS))
    return Subject(scan.stem, str(scan.path), keywords, numbers)


def forbidden(policy: Policy, scan: ScanFile, terms: Terms | None = None, unknown: bool = False) -> ScanOutcome | None:
    """The outcome of a scan that is never coloured; None for others. ``unknown`` as in ``Policy.forbidding``."""
    rule = policy.forbidding(subject_of(scan, terms), unknown)
    return None if rule is None else outcome_of(rule, scan, policy)


def outcome_of(rule: Rule, scan: ScanFile, policy: Policy) -> ScanOutcome:
    """The outcome of a scan that a rule forbids to colour."""
    where = shown(policy.path.name) if policy.path else "the policy"
    message = f"never coloured, by rule {shown(rule)} of {where}"
    return ScanOutcome(scan.stem, str(scan.path), "skipped", message, failure_kind="policy", page=scan.page)


def terms_of_store(store: ScanStore, sidecar: Sidecar | None) -> Terms | None:
    """Keywords and numbers of a scan that was ingested; None if neither its store nor its sidecar knows them."""
    if store.keeps_metadata:
        return terms_of(store.embedded)
    told = sidecar.source.metadata if sidecar and sidecar.source else {}
    return (
        {KEYWORDS: list(told[KEYWORDS]), NUMBERS: list(told[NUMBERS])} if {KEYWORDS, NUMBERS} <= told.keys() else None
    )


def let_out(
    options: RunOptions, policy: Policy, scan: ScanFile, version: str, sha256: str | None, terms: Terms | None
) -> RunOptions | None:
    """The options without formats in which this version may not go out; None if no format is left.

    ``sha256`` is that of the scan file, None where it was not read yet: then nobody can have decided on it.
    """
    public = [name for name in options.formats if name in PUBLIC_FORMATS]
    if not public:
        return options
    sidecar = ResultPaths.of(options.output, scan.stem).sidecar
    said = decisions_beside(sidecar) if sha256 is not None else ()
    verdict = verdict_of(version, sha256 or "", said, policy, subject_of(scan, terms), unreviewed=True)
    if verdict:
        return options
    warn(f"{shown(verdict.reason)}: not written as {', '.join(public)}")
    rest = tuple(name for name in options.formats if name not in PUBLIC_FORMATS)
    return replace(options, formats=rest) if rest else None
