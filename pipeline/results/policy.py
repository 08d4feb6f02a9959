"""``policy.yaml`` in an output folder: what is never coloured, what is held for review, what goes out with a label.

Rules are matched by folder, name, catalogue number or keyword, by any of their patterns. Names are compared as file
systems do (:func:`pipeline.support.names.folded`). A file with a mistake is refused whole: a rule that is left out
would let out what it was written for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import yaml

from pipeline.errors import UsageError
from pipeline.formats.labels import PLACES, Label
from pipeline.metadata.description import NO_LANGUAGE
from pipeline.metadata.iptc import parse_iim, resources_of
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.xmp import properties
from pipeline.results.sidecar import Sidecar
from pipeline.support.files import read_text
from pipeline.support.names import folded

POLICY_FILE = "policy.yaml"
KEYWORDS, NUMBERS = "keywords", "numbers"
"""Keys of ``source.metadata`` in a sidecar: what the rules are matched with."""

Action = Literal["never", "hold", "label"]
_ACTIONS: tuple[Action, ...] = get_args(Action)
_PATTERNS = ("folders", "names", "numbers", "keywords")
_MOST_APPROVALS = 9
_MOST_TERMS, _LONGEST_TERM = 200, 500
_LONGEST_LABEL = 300
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(-[a-zA-Z0-9]{1,8})*")  # BCP 47, in short

_IPTC_RESOURCE = 1028
# IIM 4.2: 2:25 keywords; 2:103 original transmission reference, the job identifier.
_IIM_KEYWORDS, _IIM_NUMBERS = (2, 25), (2, 103)
_EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_XMP_KEYWORDS = ("{http://purl.org/dc/elements/1.1/}subject",)
_XMP_NUMBERS = (
    "{http://purl.org/dc/elements/1.1/}identifier",
    "{http://ns.adobe.com/photoshop/1.0/}TransmissionReference",
    f"{_EXT}DigImageGUID",
)
_ARTWORK, _INVENTORY = f"{_EXT}ArtworkOrObject", f"{_EXT}AOSourceInvNo"


@dataclass(frozen=True)
class Subject:
    """What a policy can know of a scan.

    Attributes
    ----------
    stem : path of its results below the output folder, without ending
    path : of the scan file
    keywords, numbers : from its embedded metadata; None if they are not known
    """

    stem: str
    path: str = ""
    keywords: tuple[str, ...] | None = None
    numbers: tuple[str, ...] | None = None

    @property
    def folders(self) -> tuple[tuple[str, ...], ...]:
        """The folders of results and file, as folded parts; that of the file begins with an empty part."""
        found = [_parts(PurePosixPath(self.stem).parent)]
        return (*found, _parts(PurePosixPath(self.path).parent)) if self.path else tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of result and file, folded, those of the file with and without ending."""
        path = PurePosixPath(self.path)
        return tuple({folded(name) for name in (PurePosixPath(self.stem).name, path.name, path.stem) if name})

    @classmethod
    def of_sidecar(cls, sidecar: Sidecar, stem: str) -> Subject:
        """The scan of a result."""
        source = sidecar.source
        told = source.metadata if source else {}
        return cls(stem, source.path if source else "", _terms(told.get(KEYWORDS)), _terms(told.get(NUMBERS)))


def _terms(value: Any) -> tuple[str, ...] | None:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else None


def _parts(folder: PurePosixPath) -> tuple[str, ...]:
    """The parts of a folder, folded; those of an absolute one begin with an empty part.

    >>> _parts(PurePosixPath("/A/b")), _parts(PurePosixPath("."))
    (('', 'a', 'b'), ())
    """
    return tuple(folded(part.strip("/")) for part in folder.parts)


def terms_of(embedded: EmbeddedMetadata) -> dict[str, list[str]]:
    """Keywords and catalogue numbers of embedded metadata (IIM, XMP); damaged parts have none.

    References
    ----------
    IPTC Photo Metadata Standard 2023.2: Keywords, Job Id, Digital Image GUID, Artwork Source Inventory Nr.
    """
    keywords, numbers = [], []
    for record, dataset, value in _datasets(embedded):
        text = _decoded(value)
        keywords += [text] if (record, dataset) == _IIM_KEYWORDS else []
        numbers += [text] if (record, dataset) == _IIM_NUMBERS else []
    with contextlib.suppress(ValueError):
        found = properties(embedded.xmp) if embedded.xmp else {}
        keywords += [text for name in _XMP_KEYWORDS for text in _texts(json.loads(found.get(name, "null")))]
        numbers += [text for name in _XMP_NUMBERS for text in _texts(json.loads(found.get(name, "null")))]
        numbers += _inventory(json.loads(found.get(_ARTWORK, "null")))
    return {KEYWORDS: _tidied(keywords), NUMBERS: _tidied(numbers)}


def _datasets(embedded: EmbeddedMetadata) -> list[tuple[int, int, bytes]]:
    blocks = [embedded.iptc]
    with contextlib.suppress(ValueError):
        if embedded.photoshop:
            blocks += [each.data for each in resources_of(embedded.photoshop) if each.number == _IPTC_RESOURCE]
    found: list[tuple[int, int, bytes]] = []
    for block in blocks:
        with contextlib.suppress(ValueError, IndexError):
            found += parse_iim(block) if block else ()
    return found


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _texts(value: Any) -> list[str]:
    """All texts in a property's value (:func:`pipeline.metadata.xmp.properties`)."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    # The first item of a list is the kind of its array.
    return [text for each in value[1:] for text in _texts(each)] if isinstance(value, list) else []


def _inventory(value: Any) -> list[str]:
    """The inventory numbers among what XMP says of artworks in the picture."""
    if isinstance(value, Mapping):
        return [t for name, each in value.items() for t in (_texts(each) if name == _INVENTORY else _inventory(each))]
    return [text for each in value for text in _inventory(each)] if isinstance(value, list) else []


def _tidied(texts: Iterable[str]) -> list[str]:
    cut = (" ".join(text.replace("\0", " ").split())[:_LONGEST_TERM] for text in texts)
    return list(dict.fromkeys(filter(None, cut)))[:_MOST_TERMS]


@dataclass(frozen=True)
class Rule:
    """A rule of a policy; it applies where any of its patterns matches. ``*``, ``?`` and ``[...]`` are as in a shell.

    A folder is matched with all below it; one without a slash in front is found anywhere in a path.
    """

    name: str
    action: Action
    folders: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    reason: str = ""
    label: Label | None = None

    @property
    def key(self) -> str:
        """The name with a hash of what the rule catches: an approval lifts the rule as it was, not a later one."""
        caught = json.dumps([self.action, self.folders, self.names, self.numbers, self.keywords])
        return f"{self.name}#{hashlib.sha256(caught.encode()).hexdigest()[:8]}"

    @property
    def needs_terms(self) -> bool:
        """True if only the scan's metadata tells whether the rule applies."""
        return bool(self.numbers or self.keywords)

    def catches(self, subject: Subject) -> bool | None:
        """True if the rule applies to a scan, False if not; None if that is not known."""
        if any(_within(pattern, folder) for pattern in self.folders for folder in subject.folders):
            return True
        terms = ((self.names, subject.names), (self.numbers, subject.numbers), (self.keywords, subject.keywords))
        if any(_matches(patterns, found) for patterns, found in terms if found is not None):
            return True
        return None if any(patterns and found is None for patterns, found in terms) else False

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" ({self.reason})" if self.reason else "")


def _matches(patterns: Iterable[str], found: Iterable[str]) -> bool:
    return any(fnmatchcase(folded(text), folded(pattern)) for pattern in patterns for text in found)


def _within(pattern: str, folder: tuple[str, ...]) -> bool:
    """True if a folder is one that the pattern names, or lies below it."""
    wanted = _parts(PurePosixPath(pattern))
    starts = range(len(folder) - len(wanted) + 1)
    if wanted[:1] == ("",):
        starts = starts[:1]
    runs = (folder[start : start + len(wanted)] for start in starts)
    return any(all(map(fnmatchcase, run, wanted)) for run in runs)


@dataclass(frozen=True)
class Policy:
    """The rules of an output folder. Without a file there are none, and results go out unreviewed.

    Attributes
    ----------
    approvals : how many people must approve a result before it goes out; 0 for none, 2 for four eyes
    people : who may approve, folded; empty for everybody
    """

    rules: tuple[Rule, ...] = ()
    approvals: int = 0
    people: frozenset[str] = frozenset()
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def read(cls, output: Path) -> Policy:
        """The policy of an output folder; one without rules if it has no file.

        Raises UsageError if the file cannot be read, or says anything that is not understood.
        """
        path = output / POLICY_FILE
        try:
            text = read_text(path)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise _refused(path, str(error)) from error
        try:
            values = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise _refused(path, f"not YAML: {' '.join(str(error).split())}") from error
        return cls.from_json({} if values is None else values, path)

    @classmethod
    def from_json(cls, values: Any, path: Path = Path(POLICY_FILE)) -> Policy:
        """The policy of parsed YAML. Raises UsageError."""
        told = _mapping(path, "the file", values, {"review", "rules"})
        review = _mapping(path, "review", told.get("review") or {}, {"approvals", "people"})
        approvals = review.get("approvals", 1 if told.get("review") else 0)
        if type(approvals) is not int or not 0 <= approvals <= _MOST_APPROVALS:
            raise _refused(path, f"approvals {approvals!r:.40} is not a number from 0 to {_MOST_APPROVALS}")
        people = _texts_of(path, "people", review.get("people", []))
        if people and len(people) < approvals:
            raise _refused(path, f"{approvals} approvals by {len(people)} people can never be had")
        rules = told.get("rules") or []
        if not isinstance(rules, list):
            raise _refused(path, "rules is not a list")
        made = tuple(_rule(path, number, each) for number, each in enumerate(rules, 1))
        names = [rule.name for rule in made]
        if twice := {name for name in names if names.count(name) > 1}:
            raise _refused(path, f"two rules are called {min(twice)!r}")
        return cls(made, approvals, frozenset(folded(" ".join(name.split())) for name in people), path)

    @property
    def needs_terms(self) -> bool:
        """True if some rule asks for keywords or catalogue numbers."""
        return any(rule.needs_terms for rule in self.rules)

    def forbidding(self, subject: Subject, unknown: bool = True) -> Rule | None:
        """The first rule by which a scan is never coloured; None if there is none.

        ``unknown``: a rule that asks for what is not known of the scan counts too.
        """
        return next(iter(self.rules_for(subject, "never", unknown)), None)

    def rules_for(self, subject: Subject, action: Action, unknown: bool = True) -> tuple[Rule, ...]:
        """The rules of one action that apply to a scan, and with ``unknown`` those that may."""
        found = ((rule, rule.catches(subject)) for rule in self.rules if rule.action == action)
        return tuple(rule for rule, catches in found if catches or (catches is None and unknown))


def _rule(path: Path, number: int, values: Any) -> Rule:
    where = f"rule {number}"
    told = _mapping(path, where, values, {"name", "action", "reason", "label", "place", *_PATTERNS})
    name, action = told.get("name"), told.get("action")
    if not isinstance(name, str) or not name.strip() or "\n" in name:
        raise _refused(path, f"{where} has no name")
    where = f"rule {name!r:.80}"
    if action not in _ACTIONS:
        raise _refused(path, f"{where}: action {action!r:.40} is none of {', '.join(_ACTIONS)}")
    patterns = {each: _texts_of(path, f"{where}: {each}", told.get(each, [])) for each in _PATTERNS}
    if not any(patterns.values()):
        raise _refused(path, f"{where} names nothing; give one of {', '.join(_PATTERNS)}, or '*' for all")
    reason = told.get("reason", "")
    if not isinstance(reason, str):
        raise _refused(path, f"{where}: reason is no text")
    if (action == "label") != bool(told.get("label")) or (action != "label" and "place" in told):
        raise _refused(path, f"{where}: a label is what action 'label' needs, and no other has")
    label = _label(path, where, told) if action == "label" else None
    folders, names, numbers, keywords = (patterns[each] for each in _PATTERNS)
    return Rule(name, action, folders, names, numbers, keywords, reason, label)


def _label(path: Path, where: str, told: Mapping[str, Any]) -> Label:
    """What copies say: one text, or one for each language."""
    value, place = told["label"], told.get("place", PLACES[0])
    texts = value if isinstance(value, dict) else {NO_LANGUAGE: value}
    for language, text in texts.items():
        if not isinstance(language, str) or (language != NO_LANGUAGE and not _LANGUAGE.fullmatch(language)):
            raise _refused(path, f"{where}: label: {language!r:.40} is no language; write one like 'nl', in quotes")
        if not isinstance(text, str) or not 0 < len(" ".join(text.split())) <= _LONGEST_LABEL:
            raise _refused(path, f"{where}: label is {text!r:.40}, not a text of up to {_LONGEST_LABEL} characters")
        if odd := [letter for letter in " ".join(text.split()) if unicodedata.category(letter) in ("Cc", "Cs")]:
            raise _refused(path, f"{where}: label {text!r:.40} has {odd[0]!r}, which nobody can read; leave it out")
    if place not in PLACES:
        raise _refused(path, f"{where}: place {place!r:.40} is none of {', '.join(PLACES)}")
    return Label(tuple((language, " ".join(text.split())) for language, text in texts.items()), place)


def _mapping(path: Path, where: str, value: Any, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refused(path, f"{where} is {value!r:.40}, not a list of keys with values")
    if strange := [str(key) for key in value if key not in known]:
        raise _refused(path, f"{where}: {strange[0]!r:.40} is not known; there are {', '.join(sorted(known))}")
    return value


def _texts_of(path: Path, where: str, value: Any) -> tuple[str, ...]:
    """A text or a list of texts. A number is refused: YAML reads 007 and 1_0 as other ones than were written."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise _refused(path, f"{where} is {value!r:.60}, not a list of texts; write numbers in quotes")
    return tuple(texts)


def _refused(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path}: {reason}; nothing is coloured or let out by rules half understood, mend the file")
