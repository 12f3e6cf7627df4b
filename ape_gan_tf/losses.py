"""The losses of APE-GAN (Sec. 3.2), pure functions of tensors.

All are means over the batch and come from the discriminator's logits, since
log(sigmoid(x)) computed in two steps overflows in float32.
"""

from __future__ import annotations

import tensorflow as tf

from data.checks import check_one_of


def discriminator_loss(
    clean_logits: tf.Tensor, purified_logits: tf.Tensor
) -> tf.Tensor:
    """-[log D(X) + log(1 - D(G(X_adv)))], the standard loss of Eq. 6.

    Eq. 10 and Eq. 11 print log D(G(X_adv)) in the second term, with which the
    discriminator would call everything clean: a slip that we do not follow.

    Args:
        clean_logits: float32 `[B, 1]`, the discriminator on clean images.
        purified_logits: float32 `[B, 1]`, the same on purified images.

    Returns:
        A float32 scalar of 0 or more.
    """
    return tf.reduce_mean(tf.nn.softplus(-clean_logits)) + tf.reduce_mean(
        tf.nn.softplus(purified_logits)
    )


def adversarial_loss(purified_logits: tf.Tensor) -> tf.Tensor:
    """-log D(G(X_adv)): Eq. 14 without its constant 1, as a mean.

    Args:
        purified_logits: float32 `[B, 1]`.

    Returns:
        A float32 scalar of 0 or more.
    """
    return tf.reduce_mean(tf.nn.softplus(-purified_logits))


def mse(clean: tf.Tensor, purified: tf.Tensor) -> tf.Tensor:
    """Pixel-wise mean squared error (Eq. 13), a mean over channels too.

    Args:
        clean: float32 `[B, H, W, C]`.
        purified: The same.

    Returns:
        A float32 scalar of 0 or more.
    """
    return tf.reduce_mean(tf.math.squared_difference(clean, purified))


def root_mse(clean: tf.Tensor, purified: tf.Tensor) -> tf.Tensor:
    """Root of the batch's `mse`, as in the authors' released code.

    Its gradient does not fade as the error falls. The small constant keeps it
    finite where the two are equal.
    """
    return tf.sqrt(mse(clean, purified) + 1e-12)


CONTENT_LOSSES = {"mse": mse, "root_mse": root_mse}


def content_loss(name: str, clean: tf.Tensor, purified: tf.Tensor) -> tf.Tensor:
    """The content loss of that name: `mse` (Eq. 13) or `root_mse`.

    Raises:
        ValueError: There is none of that name.
    """
    known = check_one_of(name, CONTENT_LOSSES, "content_loss")
    return CONTENT_LOSSES[known](clean, purified)


def generator_loss(
    content: tf.Tensor,
    adversarial: tf.Tensor,
    *,
    content_weight: float,
    adversarial_weight: float,
) -> tf.Tensor:
    """xi_1 * content + xi_2 * adversarial (Eq. 12).

    The paper's weights are 0.7 and 0.3 (Sec. 4.1.3), the released code's 0.9
    and 0.02.
    """
    return content_weight * content + adversarial_weight * adversarial


def classification_loss(
    logits: tf.Tensor, labels: tf.Tensor, q: float = 0.0
) -> tf.Tensor:
    """The classifier's own loss of the true labels, bounded on request.

    The generalised cross-entropy of Zhang and Sabuncu 2018 (Eq. 6) of the
    label's probability p, (1 - p^q) / q, the cross-entropy where q is 0. Above
    0 an image that errs beyond hope has next to no gradient, and does not drown
    those that can be won: a frozen classifier is sure of its errors.

    Args:
        logits: float32 `[B, K]`, of the frozen classifier on purified images.
        labels: int64 `[B]`.
        q: In [0, 1]; at 1 the loss is the probability of an error.

    Returns:
        A float32 scalar of 0 or more.
    """
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if q:
        each = -tf.math.expm1(-q * each) / q
    return tf.reduce_mean(each)


def consistency_loss(logits: tf.Tensor, wanted_logits: tf.Tensor) -> tf.Tensor:
    """KL(p || q): q on purified images from what it should be, p.

    Args:
        logits: float32 `[B, K]`, of the frozen classifier on purified images.
        wanted_logits: float32 `[B, K]`, of the same on clean images as they
            are; no gradient goes through them.

    Returns:
        A float32 scalar of 0 or more.
    """
    wanted = tf.nn.log_softmax(tf.stop_gradient(wanted_logits))
    gap = wanted - tf.nn.log_softmax(logits)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(wanted) * gap, -1))
