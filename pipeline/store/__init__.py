"""The Zarr v3 group of one scan: its original samples and every version of its colours. Only here is zarr imported.

    <stem>.zarr/
      zarr.json            attributes: format, source (name, path, bytes, sha256), scan (dtype, channels, metadata)
      carried.json         the scan's embedded metadata
      scan                 (H, W) or (H, W, 3), the scan's own samples
      mask                 (H, W) opacity, if the scan has a mask or a nodata value
      versions/
        <version>/         attributes: settings (what decides its bytes), block_px, scale_factor, created, complete
          anchor.npy       (2, h, w) float32 a*, b* of the anchor's or palette's cells, if there is one
          doubt.npy        (rows, columns) expected CIEDE2000 of the palette's cells; doubt.json is that of the scan
          answers.npy      (3, 3, rows, columns): the three likeliest colours a*, b* of each cell and their shares
          agreement        (levels, 4, h, w) float32: mean a*, b*, spread and weight of the tiles on squares of 32 px
          chosen/          one (rows, columns) bool .npy per refinement: which tiles of its grid were added
          chroma           (2, H, W) float16 a*, b*
            records/       one JSON per finished block: its index, its files' sizes and CRC-32s, its version

A version that is graded has no arrays: its settings name the version whose colours it changes, and how.

Arrays are sharded; a chroma shard is one output block and one task writes it whole, because concurrent writes into
parts of one shard corrupt it (zarr-python issue 3682). Chunks carry a CRC-32C, so damage is found on reading. All-zero
chunks are written too: a missing chunk always means missing work. A block counts as finished if its record exists and
matches its shard; both are written beside and renamed, the record last.
"""

from __future__ import annotations

from pipeline.store.chroma import BLOCK_SIZES_PX, BlockTiming, ChromaVersion
from pipeline.store.graded import GradedVersion
from pipeline.store.scan import CARRIED, FORMAT, SCAN_SHARD_PX, ScanStore, Source, is_store

__all__ = [
    "BLOCK_SIZES_PX",
    "CARRIED",
    "FORMAT",
    "SCAN_SHARD_PX",
    "BlockTiming",
    "ChromaVersion",
    "GradedVersion",
    "ScanStore",
    "Source",
    "is_store",
]
