"""Gradients of convolutions by their input, as products of matrices.

An attack waits for the gradient of the classifier by its images. On a processor
TensorFlow's kernel for it is slow in two places, where one product of matrices
and a sum of the patches that it gives are not:

- Where the kernel is as large as the output, it takes three to ten times as
  long as the convolution itself; the product little longer than that, and
  `polynomial_products` half of it where a batch is large. Target C has two such
  convolutions, as have discriminators that end in one.
- In the first convolution of grey images, and in one of many filters of colour
  images, oneDNN computes a register of input channels where there are one or
  three: two to five times as long with AVX-512. Where TensorFlow does not use
  oneDNN, the product takes about as long as its kernel.

A deconvolution is such a gradient: the last one of a purifier has the image's
one or three channels too.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import tensorflow as tf

from models import polynomial_products
from models.layer_exchange import exchange

# Input channels that oneDNN computes at once with AVX-512, needed or not.
_LANES = 16


def accelerate(model: keras.Model) -> keras.Model:
    """Returns a model of the same values, up to rounding, that is faster.

    See `exchange` for what it shares with `model`.

    Args:
        model: A Keras model of one input and one output.

    Returns:
        `model` itself where there is nothing to gain: no convolution of the
        kind, layers that cannot be exchanged, or a GPU, whose kernels are
        fast.
    """
    if tf.config.list_physical_devices("GPU"):
        return model
    return exchange(model, _substitute)


def _substitute(layer: Any) -> _Exchanged | None:
    if not _is_exchangeable(layer):
        return None
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return MatrixConv2DTranspose(layer)
    return MatrixGradientConv2D(layer)


def _is_exchangeable(layer: Any) -> bool:
    return _is_plain(layer) and (
        _wastes_lanes(*layer.kernel.shape[2:])
        or (
            type(layer) is keras.layers.Conv2D
            and _covers(layer.kernel_size, layer.output.shape[1:3])
        )
    )


def _is_plain(layer: Any) -> bool:
    """Whether it is a convolution or deconvolution without any specials.

    Its stride is the same along both axes.
    """
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return (
        type(layer) in kinds
        and layer.data_format == "channels_last"
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "output_padding", None) is None
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.strides[0] == layer.strides[1]
        and layer.compute_dtype == "float32"
        and None not in layer.output.shape[1:3]
        and not getattr(layer, "lora_enabled", False)
    )


def _covers(kernel_size: Any, output_size: Any) -> bool:
    return all(
        kernel >= output > 0
        for kernel, output in zip(kernel_size, output_size, strict=True)
    )


def _wastes_lanes(channels: int, filters: int) -> bool:
    # Measured in time for one element of a patch: the lanes that are empty
    # cost more than writing the patch and adding it.
    return filters * (_LANES / channels - 1) >= 200


class _Exchanged(keras.layers.Layer, abc.ABC):
    """Calls a layer of somebody else's, with a product of its own.

    Args:
        layer: Of the kinds that `_is_plain` lets through.
    """

    def __init__(self, layer: Any) -> None:
        # Its own precision, whatever the global policy is by now.
        super().__init__(
            name=layer.name, trainable=layer.trainable, dtype=layer.dtype_policy
        )
        self.layer = layer

    def call(self, images: tf.Tensor) -> tf.Tensor:
        outputs = self.product(images, tf.convert_to_tensor(self.layer.kernel))
        if self.layer.use_bias:
            outputs += self.layer.bias
        return self.layer.activation(outputs)

    @abc.abstractmethod
    def product(self, images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """What the layer makes of images before bias and activation."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


class MatrixGradientConv2D(_Exchanged):
    """A convolution with a gradient of its own."""

    def product(self, images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        layer = self.layer
        return convolve(images, kernel, layer.strides[0], layer.padding.upper())


class MatrixConv2DTranspose(_Exchanged):
    """A deconvolution as a product of matrices."""

    def product(self, images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        layer = self.layer
        # Not that of `layer.output`, which is of its first call anywhere.
        size = self.compute_output_shape(images.shape)[1:3]
        return deconvolve(
            images, kernel, size, layer.strides[0], layer.padding.upper()
        )


def deconvolve(
    images: tf.Tensor,
    kernel: tf.Tensor,
    size: Any,
    stride: int,
    padding: str,
) -> tf.Tensor:
    """tf.nn.conv2d_transpose, as a product of matrices.

    Args:
        images: float32 `[B, H, W, C]`, of known H, W and C.
        kernel: float32 `[h, w, F, C]`.
        size: H' and W', which a convolution would make H and W of.
        stride: Along both axes.
        padding: "SAME" or "VALID".

    Returns:
        float32 `[B, H', W', F]`.
    """

    @tf.custom_gradient
    def function(images: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_kernel = _kernel_gradient(
                upstream, kernel, images, stride, padding
            )
            return tf.nn.conv2d(upstream, kernel, stride, padding), by_kernel

        return input_gradient(images, kernel, size, stride, padding), gradient

    return function(images, kernel)


def convolve(
    images: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str
) -> tf.Tensor:
    """tf.nn.conv2d, with a gradient by `images` that is a matrix product.

    Under XLA and with an unknown B that gradient has none itself.

    Args:
        images: float32 `[B, H, W, C]`, of known H, W and C.
        kernel: float32 `[h, w, C, F]`.
        stride: Along both axes.
        padding: "SAME" or "VALID".

    Returns:
        float32 `[B, H', W', F]`.
    """

    @tf.custom_gradient
    def function(images: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_kernel = _kernel_gradient(
                images, kernel, upstream, stride, padding
            )
            size = images.shape[1:3]
            return input_gradient(
                upstream, kernel, size, stride, padding
            ), by_kernel

        return tf.nn.conv2d(images, kernel, stride, padding), gradient

    return function(images, kernel)


def _kernel_gradient(
    images: tf.Tensor,
    kernel: tf.Tensor,
    upstream: tf.Tensor,
    stride: int,
    padding: str,
) -> tf.Tensor:
    return tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=tf.shape(kernel),
        out_backprop=upstream,
        strides=[1, stride, stride, 1],
        padding=padding,
    )


def input_gradient(
    upstream: tf.Tensor,
    kernel: tf.Tensor,
    size: Any,
    stride: int,
    padding: str,
) -> tf.Tensor:
    """The gradient of a convolution by its input.

    Args:
        upstream: float32 `[B, H', W', F]`, the gradient by its output.
        kernel: float32 `[h, w, C, F]`.
        size: H and W of the input.
        stride: Along both axes.
        padding: "SAME" or "VALID".

    Returns:
        float32 `[B, H, W, C]`.
    """
    if tuple(upstream.shape[1:3]) == (1, 1):
        # One patch, which overlaps with none.
        total = tf.tensordot(upstream[:, 0, 0], kernel, [[1], [3]])
    else:
        total = _sum_of_patches(upstream, kernel, stride)
    before = [
        _padding_before(inner, outer, side, stride, padding)
        for inner, outer, side in zip(
            size, upstream.shape[1:3], kernel.shape[:2], strict=True
        )
    ]
    return _crop(total, before, size)


def _sum_of_patches(
    upstream: tf.Tensor, kernel: tf.Tensor, stride: int
) -> tf.Tensor:
    """What each output gives back to its patch, added: all that is reached.

    Pixels are taken in blocks of stride x stride, so that the patches of
    neighbours lie a block apart, and whole blocks are added.
    """
    blocks = _in_blocks(kernel, stride)
    total = _sum_of_blocks(upstream, blocks)
    return total if stride == 1 else tf.nn.depth_to_space(total, stride)


def _sum_of_blocks(upstream: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
    batch, *output = upstream.shape
    smallest = polynomial_products.smallest_batch(output, blocks.shape)
    if smallest is None:
        return _plain_sum(upstream, blocks)
    if batch is None:
        return tf.cond(
            tf.shape(upstream)[0] >= smallest,
            lambda: polynomial_products.multiply(upstream, blocks),
            lambda: _plain_sum(upstream, blocks),
        )
    if batch < smallest:
        return _plain_sum(upstream, blocks)
    return polynomial_products.multiply(upstream, blocks)


def _plain_sum(upstream: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
    _, rows, columns, _ = blocks.shape
    patches = tf.tensordot(upstream, blocks, 1)
    lines = []
    for row in range(rows):
        parts = [
            tf.pad(
                patches[:, :, :, row, column],
                [[0, 0], [0, 0], [column, columns - 1 - column], [0, 0]],
            )
            for column in range(columns)
        ]
        lines.append(
            tf.pad(
                tf.add_n(parts),
                [[0, 0], [row, rows - 1 - row], [0, 0], [0, 0]],
            )
        )
    return tf.add_n(lines)


def _in_blocks(kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """`[h, w, C, F]` as `[F, rows, columns, stride * stride * C]`."""
    height, width, channels, filters = kernel.shape
    rows, columns = -(-height // stride), -(-width // stride)
    whole = tf.pad(
        kernel,
        [
            [0, rows * stride - height],
            [0, columns * stride - width],
            [0, 0],
            [0, 0],
        ],
    )
    split = tf.reshape(
        whole, [rows, stride, columns, stride, channels, filters]
    )
    return tf.reshape(
        tf.transpose(split, [5, 0, 2, 1, 3, 4]),
        [filters, rows, columns, stride * stride * channels],
    )


def _padding_before(
    inner: int, outer: int, side: int, stride: int, padding: str
) -> int:
    """How many zeros TensorFlow puts before a row of `inner` pixels."""
    if padding == "VALID":
        return 0
    return max((outer - 1) * stride + side - inner, 0) // 2


def _crop(total: tf.Tensor, before: list[int], size: Any) -> tf.Tensor:
    """The image's own part, with zeros where no patch reaches."""
    (top, left), (height, width) = before, size
    kept = total[:, top : top + height, left : left + width]
    return tf.pad(
        kept,
        [
            [0, 0],
            [0, height - kept.shape[1]],
            [0, width - kept.shape[2]],
            [0, 0],
        ],
    )
