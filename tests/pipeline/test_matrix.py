"""The table of formats in docs/formats.md is what the formats do."""

from pathlib import Path

import pytest

from pipeline.formats import FORMATS
from tests.benchmarks.matrix import ORDER, table

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_docs_say_what_each_format_keeps():
    assert set(ORDER) == set(FORMATS)
    told = PAGE.read_text(encoding="utf-8").split("<!-- formats -->\n")[1].split("\n<!-- end of formats -->")[0]
    assert told == table()
