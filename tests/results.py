"""Folders of results as a run leaves them, made in a moment: small scans, random colours, stores and sidecars."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.export import export_picture, output_image
from pipeline.metadata.model import EmbeddedMetadata
from pipeline.metadata.provenance import premis_event, xmp_packet
from pipeline.results.run_spec import RunSpec
from pipeline.results.sidecar import PictureRecord, ResultRecord, Sidecar, SourceRecord, StoreRecord, WorkRecord
from pipeline.results.versions import ResultPaths
from pipeline.store import BlockTiming, ScanStore, Source
from pipeline.support.files import file_sha256, tree_sha256, write_json
from pipeline.tiling.grid import TileGrid
from pipeline.types import Roi, ScanInfo
from tests.pipeline.plain import coloured

SPEC = RunSpec((256, 256), (128, 128), "hann", "openvino", "2026.0", "fp32", 8, "default", "ab" * 32, 110.0)
_BLOCK_PX = 512


def make_result(
    output: Path,
    stem: str,
    *,
    shape_yx: tuple[int, int] = (90, 130),
    formats: tuple[str, ...] = ("tiff",),
    spec: RunSpec = SPEC,
    embedded: EmbeddedMetadata | None = None,
    dtype: str = "uint8",
    seed: int = 0,
    orientation: int = 1,
    scans: Path | None = None,
) -> ResultPaths:
    """One result below ``output``, and its scan, a PNG, in ``scans`` or beside the folder."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape_yx[0], : shape_yx[1]]
    top = np.iinfo(dtype).max
    scan = ((rows + 2 * columns + rng.integers(0, 40, shape_yx)) % 256 * (top // 255)).astype(dtype)
    file = (scans or output.parent / "scans") / f"{stem}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".png", scan)[1].tobytes())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    paths = ResultPaths.of(output, stem)
    paths.store.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "PNG"} | ({"orientation": orientation} if orientation != 1 else {})
    info = ScanInfo(shape_yx, 1, dtype, metadata)
    source = Source(file.name, file.stat().st_size, sha256, str(file))
    store = ScanStore.create(paths.store, info, source, embedded)
    store.write_scan(Roi(0, shape_yx[0], 0, shape_yx[1]), scan)
    version = store.create_version(spec.version, spec.to_json(), _BLOCK_PX, 1.0, "2026-05-04T10:00:00+00:00")
    chroma = rng.normal(0, 20, (2, *shape_yx)).astype(np.float32)
    chroma = cv2.GaussianBlur(chroma.transpose(1, 2, 0), (0, 0), 9).transpose(2, 0, 1) * 20
    size = (_BLOCK_PX, _BLOCK_PX)
    for block in TileGrid.of(shape_yx, size, size).blocks(_BLOCK_PX):
        part = np.ascontiguousarray(chroma[:, block.write_roi.rows, block.write_roi.columns])
        version.write(block.index_yx, coloured(part), version.attempt, BlockTiming(1, 0.0))
    version.finish()
    write_sidecar(paths, store, spec, formats, source)
    return paths


def write_sidecar(
    paths: ResultPaths, store: ScanStore, spec: RunSpec, formats: tuple[str, ...], source: Source
) -> None:
    """Export the pictures of a store's version, with a sidecar as a run writes it."""
    software = "colorize-archive 0.7.0"
    made = store.version(spec.version)
    packet = xmp_packet(software, "Colour added by an algorithm.", source.name)
    picture = output_image(store, made, software, "", None)
    picture = replace(picture, name=paths.stem, embedded=replace(picture.embedded, xmp=packet))
    height, width = store.info.shape_yx
    when = "2026-05-04T10:00:00+00:00"
    pictures = {}
    for name in formats:
        path = paths.picture(name)
        written = export_picture(name, path, picture, 1)
        sha256 = tree_sha256(path)
        agents = {"colorize-archive": "0.7.0", f"model {spec.model}": f"SHA-256 {spec.model_sha256}"}
        event = premis_event(when, "colour added", agents, (source.name, source.sha256), (path.name, sha256))
        pictures[name] = PictureRecord(
            file=path.name,
            bytes=written.bytes,
            sha256=sha256,
            levels=len(written.levels_yx),
            carries_metadata=True,
            not_carried=dict(written.not_carried),
            premis=event,
        )
    sidecar = Sidecar(
        what="colour added by an algorithm; lightness is the scan's own",
        software=software,
        flow="colorize-archive",
        finished=when,
        source=SourceRecord(
            path=source.path,
            name=source.name,
            bytes=source.bytes,
            sha256=source.sha256,
            height_px=height,
            width_px=width,
            channels=1,
            dtype=store.info.dtype,
            depth=store.info.result_dtype.name,
            tone="srgb",
            metadata=dict(store.info.metadata),
        ),
        settings=spec.to_json(),
        result=ResultRecord(version=spec.version, store=paths.store.name),
        pictures=pictures,
        store=StoreRecord(
            sha256={
                each.relative_to(store.path).as_posix(): file_sha256(each)
                for each in (*store.described_by(), *made.described_by())
            },
            records_sha256=made.records_sha256(),
        ),
        work=WorkRecord(megapixels=0.1, tiles=1, predictions=1, blocks=1, block_px=_BLOCK_PX, seconds={"export": 0.1}),
    )
    write_json(paths.sidecar, sidecar.to_json())
