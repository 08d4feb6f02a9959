"""Three examples of each command, at the end of its help. They are read by the parser in the tests."""

from __future__ import annotations

import typer

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "run": (
        "run /scans --output /colour",
        "run '/scans/1910*.tif' -o /colour --format tiff,iiif --until 06:00",
        "run /scans -o /colour --dry-run",
    ),
    "reprocess": (
        "reprocess /colour --stride 64",
        "reprocess /colour 'albums/' --saturation 0.9 --warmth 3",
        "reprocess /colour --worse-than 1.05 --quality 1.03",
    ),
    "variants": (
        "variants /colour/plate",
        "variants /colour/albums/plate.zarr --sheet looks.html",
        "variants /colour/plate --take 5",
    ),
    "inspect": (
        "inspect /scans/plate.tif",
        "inspect /colour/plate.zarr --map where.png",
        "inspect /colour/plate.zarr --at 1200,800",
    ),
    "hint": (
        "hint /scans/plate.tif --at 1200,840 --colour '#556b2f' --author 'A. Curator' --source 'wool tunic, no. 17'",
        "hint /colour/plate.color.tif --box 0,0,300,80 --colour gray",
        "hint /scans/plate.tif --list",
    ),
    "verify": ("verify /colour", "verify /colour/plate.color.json", "verify /colour --json"),
    "diff": (
        "diff /colour/plate.zarr",
        "diff /colour/plate.zarr 3f2a --map where.png",
        "diff /colour/plate.zarr 3f2a 9c01 --json",
    ),
    "sheet": ("sheet /colour", "sheet .", "sheet ~/archive/colour"),
    "models": ("models", "engines list --model free", "run /scans -o /colour --model free"),
    "train": (
        "train palette-own --data /photographs",
        "train generator --data /photographs --out /runs/g --set phases.0.epochs=5",
        "train generator --data /photographs --out /runs/g --resume",
    ),
    "export": (
        "export /runs/g --out /models/ours",
        "export /runs/g --out /models/calm --chroma-gain 0.8",
        "export /runs/g --out /models/ours --name ours --note 'album 7 alone'",
    ),
    "evaluate": (
        "evaluate default --data /photographs",
        "evaluate default /models/ours --data /photographs --limit 500 --out /table",
        "evaluate default free --benchmark historic",
    ),
    "reproduce": (
        "reproduce unet-cgan --data /photographs --out /page",
        "reproduce patchgan-study --data /photographs --out /page --minutes 60",
        "reproduce dilated-gan --data /photographs --out /page --full",
    ),
    "quiz": ("quiz /answers", "quiz .", "quiz ~/answers"),
    "recipes": ("recipes", "train generator --data /photographs", "train palette-own --data /photographs"),
    "status": ("status /colour", "status /colour --json", "status /colour --rebuild"),
    "release": ("release /colour plate", "release /colour '1910*'", "release /colour albums/"),
    "restore": (
        "restore /colour/plate.zarr 3f2a",
        "restore /colour/plate.color.tif 3f2a",
        "restore /colour/plate.color.json 9c01",
    ),
    "decisions": (
        "decisions /colour",
        "decisions /colour --export decisions.csv",
        "decisions /colour --import decisions.csv",
    ),
    "clean": ("clean /colour --dry-run", "clean /colour --versions", "clean /colour --stores"),
    "doctor": ("doctor", "doctor /colour", "doctor /colour --json"),
    "publish": (
        "publish /colour --to /site",
        "publish /colour --to /site --base-url https://archive.example/",
        "publish /colour --to /site --check",
    ),
    "review": ("review /colour", "review /colour --port 8001", "review /colour --read-only"),
    "package": (
        "package /colour --as bagit --to /packages",
        "package /colour --as ocfl --to /packages",
        "package /colour --as archivematica --to /packages",
    ),
    "sign": (
        "sign /colour --certificate archive.pem --key archive.key",
        "sign /colour --certificate archive.pem --key archive.key --names",
        "sign /colour --certificate archive.pem --key archive.key --unreviewed",
    ),
    "catalogue": (
        "catalogue /colour --to colour.csv",
        "catalogue /colour --to colour.jsonl --codes codes.csv",
        "catalogue /colour --to colour.csv --base-url https://archive.example/",
    ),
    "engines list": ("engines list", "engines list --model free", "engines list --json"),
    "engines build": (
        "engines build",
        "engines build --backend tensorrt --precision fp16",
        "engines build --model /models/ours --tile 512 --force",
    ),
    "engines inspect": (
        "engines inspect default.engine",
        "engines inspect ~/.cache/colorize-archive/default.engine",
        "engines list",
    ),
    "engines check": (
        "engines check",
        "engines check --all",
        "engines check --backend onnxruntime --precision int8 --json",
    ),
    "engines bench": (
        "engines bench",
        "engines bench --backend openvino --backend onnxruntime --seconds 10",
        "engines bench --precision fp32 --batch 1 --batch 16 --plot speeds.png",
    ),
    "engines quantize": (
        "engines quantize --out /models/small",
        "engines quantize --out /models/small --tiles /scans",
        "engines quantize --out /models/small --model free --keep",
    ),
    "engines clean": ("engines clean", "engines clean --model free", "engines clean --model /models/ours"),
    "config show": ("config show", "config show --output /colour", "config show --json"),
}


def add_examples(app: typer.Typer, before: str = "") -> None:
    """Add the examples to the help of every command of ``app`` and of its groups."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        if lines := EXAMPLES.get(f"{before}{name}"):
            command.epilog = "\n\n".join(["Examples:", *(f"colorize-archive {line}" for line in lines)])
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_examples(group.typer_instance, f"{before}{group.name} ")
