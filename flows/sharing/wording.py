"""The words of what is published, and who publishes it: defaults in several languages, and a file that changes them.

``publish.yaml`` in the folder of results, or another file, may have any of the keys of :class:`Wording`. Texts are
either one text or one a language:

    title: Photographs of the harbour
    statement:
      en: Coloured by an algorithm; the colours are not evidence.
      nl: Ingekleurd door een algoritme; de kleuren bewijzen niets.
    rights: https://creativecommons.org/publicdomain/mark/1.0/
    provider: {id: "https://archive.example/", label: City Archive, logo: "https://archive.example/logo.png"}

References
----------
IIIF Presentation API 3.0, 3.1 (``requiredStatement``, ``rights``, ``provider``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UsageError
from pipeline.metadata.description import NO_LANGUAGE, Texts
from pipeline.support.files import read_text

WORDING_FILE = "publish.yaml"


def _as_texts(value: Any) -> Any:
    """One text, or texts by language, as a language map."""
    if isinstance(value, str):
        return {NO_LANGUAGE: (value,)}
    if isinstance(value, dict):
        return {name: (each,) if isinstance(each, str) else each for name, each in value.items()}
    return value


LanguageMap = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_as_texts)]
_WEB = re.compile(r"https?://[^\s\"<>]+")
# "rights" is one of these, by the specification (3.1).
_RIGHTS = re.compile(r"https?://(?:creativecommons\.org/(?:licenses|publicdomain)/|rightsstatements\.org/vocab/)\S+")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provider(_Strict):
    """The institution: its address, its name, and a logo."""

    id: str
    label: LanguageMap
    homepage: str = ""
    logo: str = ""

    @field_validator("id", "homepage", "logo")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not _WEB.fullmatch(value):
            raise ValueError(f"{value!r:.80} is no address; give one like https://archive.example/")
        return value


STATEMENT: Texts = {
    "en": ("Coloured by an algorithm; the colours are not evidence.",),
    "de": ("Von einem Algorithmus koloriert; die Farben sind kein Beleg.",),
    "es": ("Coloreado por un algoritmo; los colores no son una prueba.",),
    "fr": ("Colorisé par un algorithme ; les couleurs ne sont pas une preuve.",),
    "it": ("Colorato da un algoritmo; i colori non sono una prova.",),
    "nl": ("Ingekleurd door een algoritme; de kleuren zijn geen bewijs.",),
}
# Labels of a manifest and of the site's page, by language.
WORDS: dict[str, Texts] = {
    "colours": {
        "en": ("Coloured by an algorithm",),
        "de": ("Von einem Algorithmus koloriert",),
        "es": ("Coloreado por un algoritmo",),
        "fr": ("Colorisé par un algorithme",),
        "it": ("Colorato da un algoritmo",),
        "nl": ("Ingekleurd door een algoritme",),
    },
    "scan": {
        "en": ("Scan",),
        "de": ("Scan",),
        "es": ("Escaneo",),
        "fr": ("Numérisation",),
        "it": ("Scansione",),
        "nl": ("Scan",),
    },
    "note": {
        "en": ("Note",),
        "de": ("Hinweis",),
        "es": ("Nota",),
        "fr": ("Note",),
        "it": ("Nota",),
        "nl": ("Opmerking",),
    },
    "creator": {
        "en": ("Creator",),
        "de": ("Urheber",),
        "es": ("Autor",),
        "fr": ("Auteur",),
        "it": ("Autore",),
        "nl": ("Maker",),
    },
    "date": {"en": ("Date",), "de": ("Datum",), "es": ("Fecha",), "fr": ("Date",), "it": ("Data",), "nl": ("Datum",)},
    "rights": {
        "en": ("Rights",),
        "de": ("Rechte",),
        "es": ("Derechos",),
        "fr": ("Droits",),
        "it": ("Diritti",),
        "nl": ("Rechten",),
    },
    "subject": {
        "en": ("Subject",),
        "de": ("Thema",),
        "es": ("Tema",),
        "fr": ("Sujet",),
        "it": ("Soggetto",),
        "nl": ("Onderwerp",),
    },
    "place": {"en": ("Place",), "de": ("Ort",), "es": ("Lugar",), "fr": ("Lieu",), "it": ("Luogo",), "nl": ("Plaats",)},
    "identifier": {
        "en": ("Reference code",),
        "de": ("Signatur",),
        "es": ("Signatura",),
        "fr": ("Cote",),
        "it": ("Segnatura",),
        "nl": ("Inventarisnummer",),
    },
    "model": {
        "en": ("Colours by",),
        "de": ("Farben von",),
        "es": ("Colores de",),
        "fr": ("Couleurs de",),
        "it": ("Colori di",),
        "nl": ("Kleuren door",),
    },
    "reviewed": {
        "en": ("Reviewed",),
        "de": ("Geprüft",),
        "es": ("Revisado",),
        "fr": ("Vérifié",),
        "it": ("Verificato",),
        "nl": ("Gecontroleerd",),
    },
    "yes": {
        "en": ("by a person",),
        "de": ("von einem Menschen",),
        "es": ("por una persona",),
        "fr": ("par une personne",),
        "it": ("da una persona",),
        "nl": ("door een mens",),
    },
    "no": {"en": ("no",), "de": ("nein",), "es": ("no",), "fr": ("non",), "it": ("no",), "nl": ("nee",)},
    "record": {
        "en": ("How the colours were made (JSON)",),
        "de": ("Wie die Farben entstanden (JSON)",),
        "es": ("Cómo se hicieron los colores (JSON)",),
        "fr": ("Comment les couleurs ont été faites (JSON)",),
        "it": ("Come sono stati fatti i colori (JSON)",),
        "nl": ("Hoe de kleuren zijn gemaakt (JSON)",),
    },
    "premis": {"en": ("Preservation record (PREMIS 3)",), "de": ("Erhaltungsangaben (PREMIS 3)",)},
}


class Wording(_Strict):
    """What a site says beside its pictures.

    Attributes
    ----------
    title : of the site and of the collection above all others
    statement : what every viewer must show
    rights : address of a licence of Creative Commons or of a statement of rightsstatements.org; empty for none
    attribution : who is to be named; put in front of the statement
    provider : the institution
    names_reviewers : whether those who approved a result are named; ask them first
    first : which choice a viewer shows first
    """

    title: LanguageMap = Field(default_factory=dict)
    statement: LanguageMap = Field(default_factory=lambda: dict(STATEMENT))
    rights: str = ""
    attribution: str = ""
    provider: Provider | None = None
    names_reviewers: bool = False
    first: Literal["colours", "scan"] = "colours"

    @field_validator("rights")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value and not _RIGHTS.fullmatch(value):
            raise ValueError(f"{value!r:.80} is neither of Creative Commons nor of rightsstatements.org")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(text.strip() for texts in self.statement.values() for text in texts):
            raise ValueError("statement: empty, and colours that are not marked as an algorithm's are a forgery")
        return self

    @classmethod
    def read(cls, path: Path | None, output: Path) -> Wording:
        """The wording of ``path``; of the folder's own file if that is None, or the default one.

        Raises UsageError for a file that cannot be read or says anything that is not understood.
        """
        file = path if path is not None else output / WORDING_FILE
        try:
            values = yaml.safe_load(read_text(file))
            return cls.model_validate({} if values is None else values)
        except FileNotFoundError as error:
            if path is None:
                return cls()
            raise UsageError(f"{file}: not there, so what to say is not known; give a file, or leave it out") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"{file}: {where}: {first['msg']}; nothing was published, mend the file") from error
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{file}: {reason}; nothing was published, mend the file") from error

    @property
    def organization(self) -> tuple[str, str] | None:
        """Address and name of the institution, in the first language that it is given in; None if it is not told."""
        if self.provider is None:
            return None
        return self.provider.id, next(iter(self.provider.label.values()))[0]

    def required_statement(self) -> Texts:
        """The statement, with the attribution in front."""
        if not self.attribution:
            return self.statement
        return {language: (f"{self.attribution}. {texts[0]}", *texts[1:]) for language, texts in self.statement.items()}
