"""The metadata that a result should carry, and a check that the written file has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.errors import ColorizeError
from pipeline.formats import FORMATS, OutputImage
from pipeline.formats.picture import SRGB_PROFILE
from pipeline.metadata.merge import description_of, for_result, has_bound_note, software_of
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.provenance import SOURCE_TYPE, xmp_packet
from pipeline.metadata.xmp import lacking
from pipeline.results.compare_metadata import differences, missing_description

# Texts that tifffile, OME, ImageJ, ScanImage and Aperio write into the description.
_OF_SAMPLES = re.compile(
    r"""\{"shape":\ ?\[ | shape=\(\d | (?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:\w+:)?OME\b | ImageJ=\d
    | SI\.[A-Za-z]\w*(?:\.\w+)*\ =\  | Aperio\ (?:Image\ Library|Leica)\b""",
    re.VERBOSE | re.DOTALL,
)


def carried_by_result(
    scan: EmbeddedMetadata, software: str, description: str, source: str
) -> tuple[EmbeddedMetadata, str, dict[str, str]]:
    """The metadata of a scan's result.

    Parameters
    ----------
    scan : the scan's metadata
    software, description, source : of the result, for its XMP packet; ``source`` identifies the scan

    Returns
    -------
    The result's metadata; its description, with the scan's own in front; and what no format can carry, by name.
    """
    lost: dict[str, str] = {}
    try:
        xmp = xmp_packet(software, description, source, scan.xmp, software_of(scan))
    except ValueError as error:
        lost["xmp"] = f"the scan's packet stays in the store only: {error}"
        xmp = xmp_packet(software, description, source, b"", software_of(scan))
    if has_bound_note(scan):
        lost["maker note"] = "its offsets would point elsewhere in another file; it stays in the store"
    own = description_of(scan)
    if _OF_SAMPLES.match(own):
        # It describes axes and channels that the result does not have; readers would apply it to the result.
        lost |= (
            {} if own.startswith("{") else {"description": "it is about the scan's own samples; it stays in the store"}
        )
        own = ""
    return for_result(scan, xmp, SRGB_PROFILE), f"{own}\n{description}" if own else description, lost


def missing_in(name: str, path: Path, picture: OutputImage, known: Mapping[str, str]) -> dict[str, str]:
    """The metadata of ``picture`` that is missing in the file ``path`` of format ``name``, except ``known`` losses."""
    try:
        there = FORMATS[name].embedded(path)
        found = differences(picture.embedded, there)
    except ColorizeError as error:
        return {"all": f"the written file cannot be read again: {error}"}
    if text := missing_description(picture.description, there):
        found["description"] = text
    return {what: f"not found again in the written file ({why})" for what, why in found.items() if what not in known}


def missing_of_scan(name: str, path: Path, scan: EmbeddedMetadata) -> dict[str, str]:
    """The metadata of its scan, and of any result, that the picture ``path`` of format ``name`` lacks.

    Unlike :func:`missing_in` it does not check the software and model that the result names, which are not known later.
    Raises ScanError if the file cannot be read.
    """
    wanted, description, lost = carried_by_result(scan, "", "", "")
    found = FORMATS[name].embedded(path)
    missing = differences(replace(wanted, xmp=b""), found)
    if text := missing_description(description, found):
        missing["description"] = text
    if SOURCE_TYPE.encode() not in found.xmp:
        missing["Digital Source Type"] = "nothing says that its colour is an algorithm's"
    elif "xmp" not in lost and (names := lacking(wanted.xmp, found.xmp)):
        missing["xmp"] = names
    return missing
