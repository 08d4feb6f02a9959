"""May a result leave the house? Policy and decisions, in one place, for everything that publishes or exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.formats.labels import Label
from pipeline.results.decisions import Decision, decisions_beside, standing, unreadable
from pipeline.results.policy import Policy, Subject
from pipeline.results.sidecar import SIDECAR_ENDING, Sidecar

State = Literal["approved", "unreviewed", "waiting", "held", "needs work", "rejected", "forbidden", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """Whether a result may go out; true or false as a condition.

    Attributes
    ----------
    may_go_out : as it says
    state : "approved", as often as is asked for; "unreviewed", and nobody has to; "waiting" for more approvals;
        "held" by a rule that nobody lifted; "needs work" or "rejected" by somebody; "forbidden" by a rule; "unknown",
        because sidecar or a decision cannot be read
    reason : one line, for people
    approved_by : whose approvals stand, in the order of their times
    labels : what copies must say, by the policy's rules
    """

    may_go_out: bool
    state: State
    reason: str
    approved_by: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()

    def __bool__(self) -> bool:
        return self.may_go_out


def may_go_out(
    sidecar: Sidecar, decisions: Sequence[Decision], policy: Policy, *, stem: str, unreviewed: bool = False
) -> Verdict:
    """Whether the version that a sidecar describes may leave the house.

    Parameters
    ----------
    decisions : those on the scan, on any version (:func:`pipeline.results.decisions.decisions_beside`)
    stem : path of the result below the output folder, without ending
    unreviewed : let out what nobody has decided on, if neither the policy asks for approvals nor a rule holds it
    """
    version, source = sidecar.version, sidecar.whole_source
    if version is None or source is None:
        return Verdict(False, "unknown", f"{stem}: its sidecar does not say which colours of which scan these are")
    subject = Subject.of_sidecar(sidecar, stem)
    return verdict_of(version, source.sha256, decisions, policy, subject, unreviewed=unreviewed)


def verdict_of(
    version: str,
    source_sha256: str,
    decisions: Sequence[Decision],
    policy: Policy,
    subject: Subject,
    *,
    unreviewed: bool = False,
) -> Verdict:
    """As :func:`may_go_out`, for a version that may not have been made yet."""
    stem = subject.stem
    if rule := policy.forbidding(subject):
        return Verdict(False, "forbidden", f"{stem}: never coloured by the policy's rule {rule}")
    if lost := next(unreadable(decisions), None):
        return Verdict(False, "unknown", f"{stem}: a decision cannot be read and may be a rejection: {lost.note}")
    words = standing(decisions, version, source_sha256)
    for state, word in (("rejected", "reject"), ("needs work", "needs work")):
        if against := next((each for each in words if each.decision == word), None):
            why = f": {against.reason}" if against.reason else ""
            return Verdict(False, state, f"{stem}: {state} by {against.person}{why}")  # type: ignore[arg-type]
    return _of_approvals(stem, words, policy, subject, unreviewed)


def _of_approvals(stem: str, words: Sequence[Decision], policy: Policy, subject: Subject, unreviewed: bool) -> Verdict:
    """The verdict on a result that nobody is against."""
    approvals = [each for each in words if not policy.people or each.who in policy.people]
    by = tuple(each.person for each in approvals)
    labels = tuple(rule.label for rule in policy.rules_for(subject, "label") if rule.label is not None)
    holding = policy.rules_for(subject, "hold")
    # A rule that came later than an approval was not lifted by it.
    needed = max(1, policy.approvals)
    for rule in holding:
        lifted = [each for each in approvals if rule.key in each.lifts]
        if len(lifted) < needed:
            return Verdict(False, "held", f"{stem}: held for review by the policy's rule {rule}", by, labels)
    if approvals and len(approvals) >= policy.approvals:
        return Verdict(True, "approved", f"{stem}: approved by {', '.join(by)}", by, labels)
    if policy.approvals:
        why = f"{stem}: approved by {len(approvals)} of {policy.approvals} people"
        return Verdict(False, "waiting", why, by, labels)
    return Verdict(unreviewed, "unreviewed", f"{stem}: nobody has reviewed it", by, labels)


def verdict_on(output: Path, stem: str, policy: Policy | None = None, *, unreviewed: bool = False) -> Verdict:
    """As :func:`may_go_out`, from the files of an output folder. Raises UsageError for a policy with a mistake."""
    result = output / f"{stem}{SIDECAR_ENDING}"
    rules = Policy.read(output) if policy is None else policy
    sidecar = Sidecar.find(result)
    if sidecar is None:
        return Verdict(False, "unknown", f"{stem}: has no sidecar that can be read")
    return may_go_out(sidecar, decisions_beside(result), rules, stem=stem, unreviewed=unreviewed)


def rules_to_lift(sidecar: Sidecar, policy: Policy, stem: str) -> tuple[str, ...]:
    """Keys of the rules that an approval of the current version lifts, for its record."""
    return tuple(rule.key for rule in policy.rules_for(Subject.of_sidecar(sidecar, stem), "hold"))
