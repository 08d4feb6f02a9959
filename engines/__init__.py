"""A generator file to something that predicts fast.

Nothing leaves the machine: what the runtimes would tell their makers is off before any of them is imported, in every
process that imports anything of this package, and in those that it starts.

- ONNX Runtime (from 1.29 on, on every system) tells of each model, and keeps a number for this user in ``~/.cache``.
- OpenVINO, and NNCF with it, tells of each import, and keeps one in ``~/intel``. Its only switch is a file in that
  folder, so the module that sends is kept from being imported; both then take the stand-in that they bring.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
