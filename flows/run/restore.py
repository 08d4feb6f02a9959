"""An earlier version of a scan's colours that was kept becomes the current one again: names change, no picture does."""

from __future__ import annotations

from pathlib import Path

from flows.catalogue.database import Catalogue
from flows.run.compare import named_version
from flows.sheet.contact_sheet import write_sheet
from pipeline.errors import SidecarError, UsageError
from pipeline.results.sidecar import Sidecar, pictures_of, sidecar_of, version_of
from pipeline.results.versions import ResultPaths, has_recorded_size, publish
from pipeline.support.files import folder_lock

_STORE = ".zarr"


def restore(result: Path, version: str) -> tuple[str, str | None]:
    """Publish a kept version again, and tell catalogue and contact sheet.

    Parameters
    ----------
    result : the scan's store, one of its results, or these without an ending: ``/colour/albums/1910-4``
    version : its name, or the beginning of it

    Returns
    -------
    Its whole name, and that of the version that it took the place of

    Raises
    ------
    UsageError : no such scan or version, or its picture is not there. FolderBusyError : a run works on the folder.
    OutputError : the files cannot be renamed.
    """
    output, paths = find_result(result.expanduser().absolute())
    with folder_lock(output):
        current = version_of(paths.sidecar)
        kept = {str(version_of(each.sidecar)): each for each in paths.all_versions()}
        if current is not None and current.startswith(version) and not any(n.startswith(version) for n in kept):
            raise UsageError(f"{current} is the current version of {paths.stem} already; give one that was kept")
        if not kept:
            raise UsageError(f"{paths.store}: no other version was kept (--keep); reprocess makes one")
        name = named_version(list(kept), version)
        pictures = pictures_of(kept[name].sidecar)
        for form, record in pictures.items():
            if not has_recorded_size(kept[name].picture(form), record):
                raise UsageError(
                    f"{kept[name].picture(form)}: is not there as it was written, so nothing was put back; reprocess "
                    "with its settings makes it again"
                )
        before = publish(paths, name)
        with Catalogue.open(output, is_locked=True) as catalogue:
            catalogue.look_again(paths.store.relative_to(output).as_posix().removesuffix(_STORE))
            write_sheet(output, catalogue)
    return name, before


def find_result(result: Path) -> tuple[Path, ResultPaths]:
    """The folder of all results, and where those of the scan lie. Raises UsageError."""
    store = _store_of(result)
    output = next((folder for folder in store.parents if (folder / "runs").is_dir()), None)
    paths = ResultPaths.of(store.parent, store.name.removesuffix(_STORE))
    if output is None or not (paths.sidecar.exists() or paths.all_versions()):
        raise UsageError(f"{result}: no result of a run is here; give a NAME.color.json, its picture or NAME.zarr")
    return output, paths


def _store_of(result: Path) -> Path:
    """Where the store of a result is, or was: it need not be there any more."""
    path = sidecar_of(result)
    if path is None:
        return result if result.name.endswith(_STORE) else result.with_name(result.name + _STORE)
    try:
        sidecar = Sidecar.read(path)
        return result.with_name(Path(sidecar.needed("result", sidecar.result).store).name)
    except SidecarError as error:
        raise UsageError(f"{result}: no result that says which scan it is of ({error}); give NAME.zarr") from error
