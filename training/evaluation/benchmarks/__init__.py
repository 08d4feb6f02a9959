"""Pictures to measure on that come with the package, so that figures of different programs can be compared.

``historic``: 64 of Prokudin-Gorskii's glass plates of 1905-1915, three exposures through colour filters, and 64
American Kodachromes of 1939-44: the colours that old photographs really had, all in the public domain. Measure by them
and never train on them: they are of the fifth that training here holds out, and other programs should leave them out by
the same names (``MANIFEST.tsv``). A figure of this benchmark is the mean CIEDE2000 to the original at a short side of
256 px, lightness being the original's own, beside that of a gray picture.
"""

from __future__ import annotations

from pathlib import Path

from training.errors import DataError

_HERE = Path(__file__).parent


def benchmark_folder(name: str) -> Path:
    """The pictures of a benchmark. Raises DataError if there is no benchmark of that name."""
    known = sorted(path.name for path in _HERE.iterdir() if (path / "MANIFEST.tsv").is_file())
    if name not in known:
        raise DataError(f"no benchmark {name!r}; there is {', '.join(known)}")
    return _HERE / name
