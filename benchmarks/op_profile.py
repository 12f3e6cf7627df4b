"""Where a call of the generator spends its time, operation by operation.

By the profilers of TensorFlow and of ONNX Runtime. They write one event an
operation and call; its figure is the median over the calls, so that a call
which another process interrupted does not count.
"""

from __future__ import annotations

import collections
import json
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_generator
import tensorflow as tf
from processes import timed

BETWEEN = "batch normalisation and activations"
OTHER = "other operations"
OUTSIDE = "outside the operations"
TOTAL = "a call"
_REST = (BETWEEN, OTHER, OUTSIDE, TOTAL)

_WARM_UP_CALLS = 3
_BETWEEN_LAYERS = ("batch_norm", "relu", "sigmoid", "tanh")
_LAYOUT = ("Reshape", "Transpose")
# Of a deconvolution that is a product of matrices and a sum of its patches.
_PRODUCT = ("MatMul", "StridedSlice", "Pad", "AddN", "DepthToSpace")
_LAYER = re.compile(r"(encoder|decoder)_\d+")


class Event(NamedTuple):
    """One operation, in one call.

    Attributes:
        name: With the layer in it.
        kind: The operation's type.
        ms: What it took.
    """

    name: str
    kind: str
    ms: float


def of_tensorflow(
    run: Callable[[], Any], calls: int, folder: Path
) -> dict[str, float]:
    """Milliseconds by part of a call, as `by_part` has them.

    Args:
        run: One call.
        calls: How many to take the median of.
        folder: An empty one.
    """
    for _ in range(_WARM_UP_CALLS):
        run()
    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=2, python_tracer_level=0, device_tracer_level=0
    )
    with tf.profiler.experimental.Profile(str(folder), options=options):
        seconds = [timed(run)[1][0] for _ in range(calls)]
    (file,) = folder.rglob("*.xplane.pb")
    return by_part(_tensorflow_events(file), calls, statistics.median(seconds))


def _tensorflow_events(file: Path) -> Iterable[Event]:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    for plane in space.planes:
        for event in (x for line in plane.lines for x in line.events):
            # Of an operation "name:type"; what is around it has no type.
            found = re.fullmatch(
                r"([^:]+):(\w+)", plane.event_metadata[event.metadata_id].name
            )
            if found:
                yield Event(found[1], found[2], event.duration_ps / 1e9)


def of_onnx_runtime(
    model: Path, threads: int, images: np.ndarray, calls: int, folder: Path
) -> dict[str, float]:
    """The same of a converted model, see `onnx_generator`."""
    session = onnx_generator.session(model, threads, folder / "onnxruntime")
    seconds = [
        timed(session.run, None, {"images": images})[1][0]
        for _ in range(_WARM_UP_CALLS + calls)
    ][_WARM_UP_CALLS:]
    content = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    events = [
        Event(each["name"], each["args"]["op_name"], each["dur"] / 1e3)
        for each in content
        if each["cat"] == "Node" and each["name"].endswith("_kernel_time")
    ]
    return by_part(events, _WARM_UP_CALLS + calls, statistics.median(seconds))


def by_part(
    events: Iterable[Event], calls: int, seconds: float
) -> dict[str, float]:
    """Sums up operations to parts of a call.

    Args:
        events: Of all calls.
        calls: How many there were.
        seconds: The median call.

    Returns:
        Milliseconds: of each convolution by its layer's name, of `BETWEEN`,
        `OTHER` and `OUTSIDE`, and of `TOTAL`, their sum.
    """
    taken: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in events:
        taken[event.name, event.kind].append(event.ms)
    parts: dict[str, float] = collections.Counter()
    for (name, kind), ms in taken.items():
        parts[part_of(name, kind)] += statistics.median(ms) * len(ms) / calls
    total = 1e3 * seconds
    # Operations may run beside each other: then nothing is outside.
    outside = max(total - sum(parts.values()), 0.0)
    parts = {**parts, OUTSIDE: outside, TOTAL: total}
    return {name: parts[name] for name in in_order(parts)}


def in_order(parts: Iterable[str]) -> list[str]:
    """Each once: layers in the order of the network, then the rest."""
    return sorted(set(parts), key=_place)


def _place(part: str) -> tuple[int, bool, str]:
    rest = _REST.index(part) + 1 if part in _REST else 0
    return rest, not part.startswith("encoder"), part


def part_of(name: str, kind: str) -> str:
    """The part of a call that an operation belongs to.

    ONNX Runtime joins a convolution with what follows it, under the name of
    the latter: so it is the type that tells a convolution.
    """
    layer = _LAYER.search(name)
    if "Conv" in kind and layer:
        return layer[0]
    is_between = any(x in name for x in _BETWEEN_LAYERS)
    if layer and not is_between and any(x in kind for x in _PRODUCT):
        return layer[0]
    # ONNX's layout is another; what changes it has the next layer's name.
    return BETWEEN if is_between and kind not in _LAYOUT else OTHER
