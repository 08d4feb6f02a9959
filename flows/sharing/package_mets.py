"""One METS document of a whole package: every file of every scan, in the folders that the results have.

METS wants all metadata first, then all files, then their structure, while scans come one at a time. So each of these
is written into a file without a name as scans come, and they are joined at the end: a document of any size needs the
memory of one scan.

References
----------
METS 1.12 (Library of Congress, 2018).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from io import TextIOWrapper
from itertools import groupby, takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import quote
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

from flows.sharing.contents import METS, PREMIS, Digests, digests_of
from flows.sharing.mets import METS_NAMESPACE, XLINK_NAMESPACE, facts_of, time_of, use_of
from flows.sharing.ocfl import id_of
from flows.sharing.outgoing import Outgoing
from pipeline.metadata.xmp import clean
from pipeline.support.files import writing
from pipeline.support.names import shown

_AGENT = "colorize-archive"


class PackageMets:
    """The document while it is being written; :func:`package_mets` opens and closes it.

    Its structure has a division for each folder of results, in it one for each scan, and in that one for each use of a
    file: ``original``, ``derivative`` (the colours), ``credentials``, ``record`` (the sidecar), ``decisions``,
    ``metadata``.
    """

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self._folder, self._open_files = folder, open_files
        self._records, self._structure = self._part(), self._part()
        self._files: dict[str, _Part] = {}
        self._folders: tuple[str, ...] = ()
        self._scans = self._count = 0
        self._finished = ""

    def add(self, result: Outgoing, files: Mapping[str, Digests], place: Callable[[str], str]) -> None:
        """Name the files of a scan. Scans come in the order of their results' paths.

        Parameters
        ----------
        files : digests by path in the scan's folder
        place : the path from the document to such a file

        Raises OutputError.
        """
        self._scans += 1
        self._finished = max(self._finished, result.sidecar.finished)
        record = f"amd-{self._scans}"
        with writing(self._folder):
            self._add_premis(record, place(PREMIS), files[PREMIS])
            self._enter(PurePosixPath(result.stem).parent.parts)
            values = {"ORDERLABEL": result.code, "ADMID": record, "CONTENTIDS": id_of(result)}
            self._structure.start("div", {"TYPE": "Directory", "LABEL": result.name, **values})
            if METS in files:
                self._structure.whole("mptr", _link(place(METS)))
            for use, paths in groupby(sorted(files, key=use_of), use_of):
                self._structure.start("div", {"TYPE": "Directory", "LABEL": use})
                for path in paths:
                    self._add_file(use, path, place(path), files[path], record)
                self._structure.end("div")
            self._structure.end("div")

    def add_list(self, path: str, digests: Digests) -> None:
        """Name a file of the package itself, after all scans. Raises OutputError."""
        with writing(self._folder):
            self._enter(())
            self._add_file("record", path, path, digests)

    def write(self, path: Path, label: str, organization: tuple[str, str] | None) -> Digests:
        """Write the document beside ``path`` and rename it; returns its digests.

        Parameters
        ----------
        label : of the whole package
        organization : address and name of the institution; None if it is not told

        Raises OutputError.
        """
        part = path.with_name(f"{path.name}.part")
        with writing(path):
            self._enter(())
            with part.open("w", encoding="utf-8", newline="\n") as stream:
                whole = _Part(stream)
                whole.begin()
                namespaces = {"xmlns": METS_NAMESPACE, "xmlns:xlink": XLINK_NAMESPACE}
                whole.start("mets", {**namespaces, "LABEL": label, "TYPE": "package"})
                whole.start("metsHdr", {"CREATEDATE": time_of(self._finished)})
                software = f"{_AGENT} {version(_AGENT)}"
                whole.agent(software, {"ROLE": "CREATOR", "TYPE": "OTHER", "OTHERTYPE": "software"})
                if organization is not None:
                    whole.agent(organization[1], {"ROLE": "CUSTODIAN", "TYPE": "ORGANIZATION"})
                whole.end("metsHdr")
                whole.take(self._records)
                if self._files:
                    whole.start("fileSec", {})
                    for use, files in sorted(self._files.items()):
                        whole.start("fileGrp", {"USE": use})
                        whole.take(files)
                        whole.end("fileGrp")
                    whole.end("fileSec")
                whole.start("structMap", {"TYPE": "physical"})
                whole.start("div", {"TYPE": "Directory", "LABEL": label})
                whole.take(self._structure)
                whole.end("div")
                whole.end("structMap")
                whole.end("mets")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
            return digests_of(path)

    def _part(self) -> _Part:
        stream = tempfile.TemporaryFile("w+", dir=self._folder, encoding="utf-8", newline="\n")  # noqa: SIM115
        return _Part(self._open_files.enter_context(stream))

    def _add_premis(self, record: str, path: str, digests: Digests) -> None:
        self._records.start("amdSec", {"ID": record})
        self._records.start("digiprovMD", {"ID": f"premis-{self._scans}"})
        kind = {"MDTYPE": "PREMIS", "MDTYPEVERSION": "3.0", **facts_of(path, digests)}
        self._records.whole("mdRef", {**_link(path), **kind})
        self._records.end("digiprovMD")
        self._records.end("amdSec")

    def _add_file(self, use: str, name: str, path: str, digests: Digests, record: str = "") -> None:
        self._count += 1
        if use not in self._files:
            self._files[use] = self._part()
        files, name_of_file = self._files[use], f"file-{self._count}"
        files.start("file", {"ID": name_of_file, **facts_of(path, digests), "ADMID": record})
        files.whole("FLocat", _link(path))
        files.end("file")
        # The folder of the package says what the division above says already.
        label = name.partition("/")[2] or name
        self._structure.start("div", {"TYPE": "Item", "LABEL": label})
        self._structure.whole("fptr", {"FILEID": name_of_file})
        self._structure.end("div")

    def _enter(self, folders: tuple[str, ...]) -> None:
        """Go from one folder of results to another: paths in their order leave no folder twice."""
        both = zip(self._folders, folders, strict=False)
        common = sum(1 for _ in takewhile(lambda names: names[0] == names[1], both))
        for _ in self._folders[common:]:
            self._structure.end("div")
        for name in folders[common:]:
            self._structure.start("div", {"TYPE": "Directory", "LABEL": shown(name)})
        self._folders = folders


@contextmanager
def package_mets(folder: Path) -> Iterator[PackageMets]:
    """A document to write; until it is, what is known of it lies in files without a name on the drive of ``folder``."""
    with ExitStack() as open_files:
        with writing(folder):
            made = PackageMets(folder, open_files)
        yield made


class _Part:
    """A part of the document: elements, each on a line of its own."""

    def __init__(self, stream: TextIOWrapper) -> None:
        self._stream = stream
        self._xml = XMLGenerator(stream, "utf-8", short_empty_elements=True)

    def begin(self) -> None:
        self._xml.startDocument()

    def start(self, name: str, values: Mapping[str, str]) -> None:
        """Open an element; empty values are left out."""
        self._open(name, values)
        self._xml.ignorableWhitespace("\n")

    def end(self, name: str) -> None:
        self._xml.endElement(name)
        self._xml.ignorableWhitespace("\n")

    def whole(self, name: str, values: Mapping[str, str]) -> None:
        """An element without content."""
        self._open(name, values)
        self.end(name)

    def agent(self, name: str, values: Mapping[str, str]) -> None:
        self.start("agent", values)
        self._open("name", {})
        self._xml.characters(clean(name))
        self.end("name")
        self.end("agent")

    def take(self, other: _Part) -> None:
        """Go on with all that another part has."""
        other._stream.flush()
        other._stream.seek(0)
        shutil.copyfileobj(other._stream, self._stream)

    def _open(self, name: str, values: Mapping[str, str]) -> None:
        told = {key: clean(value) for key, value in values.items() if value}
        self._xml.startElement(name, AttributesImpl(told))


def _link(path: str) -> dict[str, str]:
    return {"LOCTYPE": "URL", "xlink:type": "simple", "xlink:href": quote(path)}
