"""ResNet18 for small images (He et al. 2016)."""

from typing import Any

import keras

from models import layers

STAGES = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2


def resnet18(images: Any, seeds: layers.Seeds, num_classes: int) -> Any:
    """Returns the logits of ResNet with 18 layers, for small images.

    He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016),
    Table 1, first column, in the form that is usual for CIFAR-10: the stem
    is one 3x3 convolution of stride 1 without max pooling, as in the
    paper's own networks for CIFAR-10 (Sec. 4.2), so that 32x32 images reach
    the last stage as 4x4. Four stages of two basic blocks, 64, 128, 256 and
    512 wide; the first block of the last three has stride 2 and a 1x1
    convolution in its shortcut (option B). A convolution is followed by
    batch normalisation; the ReLU of a block's second one comes after the
    addition. At the end the mean over the image and one linear layer. The
    1x1 convolutions are not among the 18.

    Batch normalisation has momentum 0.9 and epsilon 1e-5, as in Torch, and
    initial weights are He-normal, those of the linear layer too. Deviation:
    padding is TensorFlow's SAME, which at stride 2 pads even
    sizes at the bottom and on the right only.

    Args:
        images: `[B, H, W, C]` in [0, 1], at least 8x8.
        seeds: For the initial weights.
        num_classes: K.

    Returns:
        float32 `[B, K]`.
    """
    features = _convolution(images, seeds, "stem", STAGES[0], 3)
    features = layers.rectify(features, "stem_relu")
    for stage, filters in enumerate(STAGES, start=1):
        for block in range(1, BLOCKS_PER_STAGE + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            features = _basic_block(
                features,
                seeds,
                f"stage_{stage}_block_{block}",
                filters,
                strides,
            )
    return layers.classify(features, seeds, num_classes)


def _basic_block(features, seeds, name, filters, strides):
    new = _convolution(features, seeds, f"{name}_1", filters, 3, strides)
    new = layers.rectify(new, f"{name}_1_relu")
    new = _convolution(new, seeds, f"{name}_2", filters, 3)
    if strides > 1:
        features = _convolution(
            features, seeds, f"{name}_shortcut", filters, 1, strides
        )
    total = keras.layers.Add(name=f"{name}_add")([features, new])
    return layers.rectify(total, f"{name}_relu")


def _convolution(features, seeds, name, filters, kernel_size, strides=1):
    features = layers.convolve(
        features, seeds, f"{name}_conv", filters, kernel_size, strides
    )
    return layers.normalize(features, f"{name}_batch_norm")
