"""The Zarr v3 group of one scan: its original samples and every version of its colours. Only here is zarr imported.

    <stem>.zarr/
      zarr.json            attributes: format, source (name, path, bytes, sha256), scan (dtype, channels, metadata)
      carried.json         what the scan says beside its pixels
      scan                 (H, W) or (H, W, 3), the scan's own samples
      mask                 (H, W) opacity, where the scan has one or a value for no data
      versions/
        <version>/         attributes: settings (what decides its bytes), block_px, scale_factor, created, complete
          anchor.npy       (2, h, w) float32 a*, b* of the anchor's cells, where there is one
          doubt.npy        (rows, columns) expected CIEDE2000 of the palette's cells, and doubt.json that of the scan
          answers.npy      (3, 3, rows, columns) of each cell its likeliest colours a*, b*, and the share of each
          agreement        (levels, 4, h, w) float32: mean a*, b*, spread and weight of the tiles on squares of 32 px
          chosen/          one (rows, columns) bool .npy a refinement: which tiles of its grid were added
          chroma           (2, H, W) float16 a*, b*
            records/       one JSON a finished block: its place, its shard's size and CRC-32, the version it belongs to

Arrays are sharded; a chroma shard is one output block and one task writes it whole, because concurrent writes into
parts of one shard corrupt it (zarr-python issue 3682). Chunks carry a CRC-32C, so damage is found on reading. All-zero
chunks are written too: a missing chunk always means missing work. A block counts as finished when its record is there
and its shard is the one that the record describes; both are written beside and renamed, the record last.
"""

from __future__ import annotations

from pipeline.store.chroma import BLOCK_SIZES_PX, BlockTiming, ChromaVersion
from pipeline.store.scan import CARRIED, FORMAT, SCAN_SHARD_PX, ScanStore, Source, is_store

__all__ = [
    "BLOCK_SIZES_PX",
    "CARRIED",
    "FORMAT",
    "SCAN_SHARD_PX",
    "BlockTiming",
    "ChromaVersion",
    "ScanStore",
    "Source",
    "is_store",
]
