"""A Keras classifier once more, in PyTorch, with the same weights.

For attacks that only take PyTorch's modules. The twin takes images `[B, C, H,
W]` and has the layers of inference alone: dropout is left out. Keras's padding
SAME puts what is odd on the far side, which PyTorch's own padding does not, so
there it is a layer of its own; and features are flattened in Keras's order, H,
W, C, so that the weights behind need no reordering. A twin for mirrored images
goes behind a mirrored purifier (`pytorch_step.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

import models

LOGITS_TOLERANCE = 1e-4

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def twin_of(
    classifier: models.Classifier, *, mirrored: bool = False
) -> nn.Sequential:
    """Makes the twin of a classifier.

    Args:
        classifier: Of a Keras model that is a chain of Conv2D, MaxPooling2D,
            Dropout, Flatten, Dense, Activation and ReLU.
        mirrored: For images turned by 180 degrees, both axes reversed.

    Returns:
        A module in inference mode on the CPU, from float32 images `[B, C, H,
        W]` in [0, 1] to logits. Its weights take no gradient, since the
        attacks need none of them.

    Raises:
        ValueError: The classifier has something else; the message says what.
    """
    model = classifier.keras_model
    if model is None:
        raise ValueError(
            f"classifier must be a Keras model, got {classifier.name}, which "
            "is a function or a SavedModel without one"
        )
    modules = [
        part for layer in model.layers for part in _modules(layer, mirrored)
    ]
    return nn.Sequential(*modules).eval().requires_grad_(False)


def to_pytorch(images: np.ndarray) -> torch.Tensor:
    """float32 `[B, H, W, C]` as a contiguous `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def to_numpy(images: torch.Tensor) -> np.ndarray:
    """The other way round."""
    return np.ascontiguousarray(images.detach().numpy().transpose(0, 2, 3, 1))


def check_same_logits(
    twin: nn.Module, classifier: models.Classifier, images: np.ndarray
) -> float:
    """The largest difference between the two's logits, which must be small.

    Args:
        twin: From `twin_of`, or what should be one.
        classifier: What it is the twin of.
        images: float32 `[B, H, W, C]` in [0, 1].

    Raises:
        ValueError: It is more than 1e-4, or not a number: results of attacks
            on the one would say nothing about the other.
    """
    with torch.no_grad():
        logits = np.concatenate(
            [twin(part).numpy() for part in to_pytorch(images).split(128)]
        )
    difference = float(np.abs(logits - classifier.predict(images)).max())
    if not difference <= LOGITS_TOLERANCE:
        raise ValueError(
            f"logits of {classifier.name} in PyTorch must be those of Keras "
            f"to {LOGITS_TOLERANCE:g}, got a difference of {difference:.3g}"
        )
    return difference


class _FlattenLikeKeras(nn.Module):
    def __init__(self, mirrored: bool) -> None:
        super().__init__()
        self._mirrored = mirrored

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self._mirrored:
            features = features.flip(2, 3)
        return features.permute(0, 2, 3, 1).flatten(1)


def _modules(layer: keras.layers.Layer, mirrored: bool) -> list[nn.Module]:
    """What does the same as a layer of Keras."""
    match layer:
        case keras.layers.InputLayer() | keras.layers.Dropout():
            return []
        case keras.layers.Conv2D():
            return _convolution(layer, mirrored)
        case keras.layers.MaxPooling2D():
            return _pooling(layer, mirrored)
        case keras.layers.Flatten():
            is_flat = len(layer.input.shape) == 2
            return [] if is_flat else [_FlattenLikeKeras(mirrored)]
        case keras.layers.Dense():
            return _dense(layer)
        case keras.layers.Activation():
            return _activation(layer)
        case keras.layers.ReLU():
            _check_plain(layer, max_value=None, negative_slope=0, threshold=0)
            return [nn.ReLU()]
    raise ValueError(
        "a classifier for PyTorch must be a chain of Conv2D, MaxPooling2D, "
        f"Dropout, Flatten, Dense, Activation and ReLU, got {layer.name}, a "
        f"{type(layer).__name__}"
    )


def _convolution(layer: keras.layers.Conv2D, mirrored: bool) -> list[nn.Module]:
    _check_plain(
        layer, dilation_rate=(1, 1), groups=1, data_format="channels_last"
    )
    kernel = layer.kernel.numpy()
    height, width, inputs, outputs = kernel.shape
    rows, columns = _sides(layer, (height, width), mirrored)
    is_even = rows[0] == rows[1] >= 0 and columns[0] == columns[1] >= 0
    convolution = nn.Conv2d(
        inputs,
        outputs,
        (height, width),
        layer.strides,
        padding=(rows[0], columns[0]) if is_even else 0,
        bias=layer.use_bias,
    )
    if mirrored:
        kernel = kernel[::-1, ::-1]
    _fill(convolution, layer, kernel.transpose(3, 2, 0, 1))
    padding = [] if is_even else [nn.ConstantPad2d((*columns, *rows), 0.0)]
    return [*padding, convolution, *_activation(layer)]


def _pooling(
    layer: keras.layers.MaxPooling2D, mirrored: bool
) -> list[nn.Module]:
    _check_plain(layer, data_format="channels_last")
    rows, columns = _sides(layer, layer.pool_size, mirrored)
    pooling = nn.MaxPool2d(layer.pool_size, layer.strides)
    if rows == columns == (0, 0):
        return [pooling]
    return [nn.ConstantPad2d((*columns, *rows), -np.inf), pooling]


def _dense(layer: keras.layers.Dense) -> list[nn.Module]:
    kernel = layer.kernel.numpy()
    linear = nn.Linear(*kernel.shape, bias=layer.use_bias)
    _fill(linear, layer, kernel.T)
    return [linear, *_activation(layer)]


def _fill(
    module: nn.Module, layer: keras.layers.Layer, kernel: np.ndarray
) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(kernel.copy()))
        if layer.use_bias:
            module.bias.copy_(torch.from_numpy(layer.bias.numpy().copy()))


def _sides(
    layer: keras.layers.Layer, window: Sequence[int], mirrored: bool
) -> list[tuple[int, int]]:
    """What to add (less than 0: to cut off) on both sides of H and of W."""
    return [
        _sides_of_axis(*axis, layer.padding == "same", mirrored)
        for axis in zip(
            layer.input.shape[1:3], window, layer.strides, strict=True
        )
    ]


def _sides_of_axis(
    size: int, length: int, stride: int, is_same: bool, mirrored: bool
) -> tuple[int, int]:
    """Keras's padding SAME: what is odd goes to the bottom and the right."""
    windows = -(-size // stride)
    total = max((windows - 1) * stride + length - size, 0) if is_same else 0
    near, far = total // 2, total - total // 2
    if not mirrored:
        return near, far
    # The pixels that no window reaches come first there, and shift all.
    return far - (size + total - length) % stride, near


def _activation(layer: keras.layers.Layer) -> list[nn.Module]:
    name = layer.get_config()["activation"]
    if name == "linear":
        return []
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"activation of {layer.name} must be one of linear, "
            f"{', '.join(_ACTIVATIONS)} for PyTorch, got {name!r}"
        )
    return [_ACTIVATIONS[name]()]


def _check_plain(layer: keras.layers.Layer, **only: Any) -> None:
    for name, value in only.items():
        found = getattr(layer, name)
        if found != value:
            raise ValueError(
                f"{name} of {layer.name} must be {value!r} for PyTorch, got "
                f"{found!r}"
            )
