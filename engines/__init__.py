"""From a generator's file to an engine that predicts fast.

Nothing leaves the machine: the runtimes' telemetry is disabled before any of them is imported, in every process that
imports this package, and in the processes that it starts.

- ONNX Runtime (from 1.29 on, on every system) reports each model, and keeps a user id in ``~/.cache``.
- OpenVINO, and NNCF with it, reports each import, and keeps a user id in ``~/intel``. Its only switch is a file in that
  folder, so the module that sends is blocked from being imported; both then use their built-in stub.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
