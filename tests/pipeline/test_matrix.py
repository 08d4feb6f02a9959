"""The table of formats in the README is what the formats do."""

from pathlib import Path

import pytest

from pipeline.writers import FORMATS
from tests.benchmarks.matrix import ORDER, table

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_readme_says_what_each_format_keeps():
    assert set(ORDER) == set(FORMATS)
    told = README.read_text(encoding="utf-8").split("<!-- formats -->\n")[1].split("\n<!-- end of formats -->")[0]
    assert told == table()
