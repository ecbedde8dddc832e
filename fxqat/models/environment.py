"""The environment variables that libraries read while they are imported; this module imports none of them."""

from __future__ import annotations

from pathlib import Path


def environment(config: Path | None = None) -> dict[str, str]:
    """Variables for ``os.environ`` to be set before ultralytics, onnxruntime or OpenCV is imported, by cli.py and
    conftest.py alone.

    Each is read once, at import or deep inside a call, and has no other switch:

    - ``YOLO_OFFLINE``: without it every import resolves two host names, which blocks for seconds on a machine without
      a network. Downloads the user asks for still work: Ultralytics tries them first and looks at this only to explain
      a failure.
    - ``YOLO_AUTOINSTALL``: without it Ultralytics runs ``pip install`` by itself, for example ``pi-heif`` when it meets
      a damaged image.
    - ``YOLO_VERBOSE``: the first import on a machine announces the settings file it creates.
    - ``ORT_DISABLE_TELEMETRY``: without it ONNX Runtime (1.32) notes every session in a database in the home folder and
      a file in TMPDIR, to be sent to its makers.
    - ``OPENCV_LOG_LEVEL``: without it OpenCV tells of damaged images past Python, in lines beside ours.
    - ``YOLO_CONFIG_DIR`` (only with ``config``): where that settings file lies. Users keep their own, since it names
      their data set folder; tests pass a temporary folder.
    """
    variables = {
        **{"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "0"},
        **{"ORT_DISABLE_TELEMETRY": "1", "OPENCV_LOG_LEVEL": "ERROR"},
    }
    return variables if config is None else {**variables, "YOLO_CONFIG_DIR": str(config)}
