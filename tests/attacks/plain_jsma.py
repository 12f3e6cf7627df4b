"""JSMA as the paper writes it: slow, and plain enough to be checked by eye."""

from collections.abc import Callable

import numpy as np


def plain_jsma(
    gradients_of: Callable[[np.ndarray], np.ndarray],
    logits_of: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    target: int,
    theta: float = 1.0,
    gamma: float = 0.1,
    find_pair: Callable[..., tuple[int, int] | None] | None = None,
) -> np.ndarray:
    """Attacks one image, Papernot et al. 2016, Algorithms 2 and 3.

    Args:
        gradients_of: From an image to the Jacobian of its logits, float32
            `[K, ...]`, the image's shape after the class.
        logits_of: From an image to its logits `[K]`.
        image: float32, of any shape, in [0, 1].
        target: The wanted class.
        theta: What is added to a value.
        gamma: The largest share of values to change.
        find_pair: `plain_pair`, the default, or `matrix_pair`.

    Returns:
        The last image, which is of the wanted class if the attack succeeded.
    """
    find_pair = find_pair or plain_pair
    image = np.array(image, np.float32)
    for _ in range(int(round(image.size * gamma, 6) // 2)):
        if np.argmax(logits_of(image)) == target:
            break
        jacobian = np.reshape(gradients_of(image), (-1, image.size))
        alpha = jacobian[target]
        beta = jacobian.sum(axis=0) - alpha
        flat = image.reshape(-1)
        is_allowed = flat < 1 if theta > 0 else flat > 0
        pair = find_pair(alpha, beta, is_allowed, theta)
        if pair is None:
            break
        for position in pair:
            flat[position] = np.clip(flat[position] + np.float32(theta), 0, 1)
    return image


def plain_pair(
    alpha: np.ndarray,
    beta: np.ndarray,
    is_allowed: np.ndarray,
    theta: float = 1.0,
) -> tuple[int, int] | None:
    """The pair p < q of Algorithm 3, one after the other, or None."""
    # Lists of float32: faster to index, and rounded alike.
    alphas, betas = list(alpha), list(beta)
    allowed = np.flatnonzero(is_allowed).tolist()
    best, pair = 0, None
    for position, p in enumerate(allowed):
        for q in allowed[position + 1 :]:
            rise, fall = alphas[p] + alphas[q], betas[p] + betas[q]
            if theta < 0:
                rise, fall = -rise, -fall
            if rise > 0 and fall < 0 and -rise * fall > best:
                best, pair = -rise * fall, (p, q)
    return pair


def matrix_pair(
    alpha: np.ndarray,
    beta: np.ndarray,
    is_allowed: np.ndarray,
    theta: float = 1.0,
) -> tuple[int, int] | None:
    """The same from the whole matrix `[D, D]`, as NumPy is fast at it."""
    sign = np.float32(np.sign(theta))
    rise = sign * (alpha[:, None] + alpha[None, :])
    fall = sign * (beta[:, None] + beta[None, :])
    is_valid = (rise > 0) & (fall < 0)
    is_valid &= is_allowed[:, None] & is_allowed[None, :]
    saliency = np.triu(np.where(is_valid, -rise * fall, 0), k=1)
    first, second = np.unravel_index(saliency.argmax(), saliency.shape)
    if saliency[first, second] <= 0:
        return None
    return int(first), int(second)
