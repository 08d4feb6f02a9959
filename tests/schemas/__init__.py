"""XML schemas to validate against, with nothing fetched."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lxml import etree

FOLDER = Path(__file__).parent
_PLACES = {"xlink.xsd": FOLDER / "xlink.xsd"}


class _Beside(etree.Resolver):
    """Takes the schemas that others import from this folder."""

    def resolve(self, url: str, public_id: str, context: object) -> object:
        path = _PLACES.get(url.rpartition("/")[2])
        return self.resolve_filename(str(path), context) if path else None


@cache
def schema(name: str) -> etree.XMLSchema:
    """The schema in a file of this folder."""
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Beside())
    return etree.XMLSchema(etree.parse(str(FOLDER / name), parser))


def problems(document: bytes, name: str) -> list[str]:
    """What is wrong with a document by a schema; empty if it is valid."""
    tree = etree.fromstring(document)
    made = schema(name)
    made.validate(tree)
    return [f"{each.line}: {each.message}" for each in made.error_log]
