"""The generator in ONNX Runtime, an optional rival."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import keras

# Keras converts with tf2onnx.
LIBRARIES = ("onnx", "onnxruntime", "tf2onnx")
CONVERTER = "Keras's model.export(format='onnx'), which calls tf2onnx"


def missing() -> str:
    """Which libraries are not installed, and what to do; or nothing."""
    absent = [x for x in LIBRARIES if importlib.util.find_spec(x) is None]
    if not absent:
        return ""
    return (
        f"not installed: {', '.join(absent)} "
        "(pip install 'ape-gan-tf[benchmark]')"
    )


def convert(model: keras.Model, path: Path) -> None:
    """Writes a model, in inference mode, as an ONNX file.

    Args:
        model: One that has been called.
        path: Of the file.
    """
    with warnings.catch_warnings():
        # Keras gives tf2onnx the names that NumPy 2 has dropped.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(str(path), format="onnx", verbose=False)


def session(path: Path, threads: int, profile: Path | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the processor.

    Args:
        path: Of the ONNX file.
        threads: Within an operation; operations run one after the other.
        profile: What the names of its profiles begin with; None for none.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
