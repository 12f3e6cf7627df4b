"""Figures of the APE-GAN paper (Tables 2 and 3), to print beside ours."""

from __future__ import annotations

from ape_gan_tf.metrics import Row

# dataset -> (the paper's target, {input: (target error, APE-GAN error)})
_TABLE_2 = {
    "mnist": {"clean": (0.8, 1.2), "gaussian_noise": (1.7, 1.6)},
    "cifar10": {"clean": (9.9, 10.3), "gaussian_noise": (11.3, 10.7)},
}
_TABLE_3 = {
    "mnist": {
        0.1: (35.9, 0.8),
        0.2: (86.0, 1.1),
        0.3: (96.3, 2.8),
        0.4: (98.0, 21.0),
    },
    "cifar10": {
        0.1: (77.8, 26.4),
        0.2: (84.7, 45.2),
        0.3: (86.3, 55.9),
        0.4: (87.2, 63.4),
    },
}
_VARIANCE = 0.05

REMARKS = {
    "mnist": "The paper's figures are for target C and APE-GAN_m.",
    "cifar10": (
        "The paper's figures are for DenseNet40 and APE-GAN_c: where the "
        "classifier here is another, they are a landmark, not a comparison."
    ),
}


def errors(row: Row) -> tuple[float, float] | None:
    """The paper's (target error, APE-GAN error) for a row, where it has them.

    Only oblivious and benign rows on test images: the paper has no others.
    """
    if row.split != "test" or row.threat_model not in ("benign", "oblivious"):
        return None
    if row.input == "fgsm" and row.params.get("epsilon_min") is None:
        by_epsilon = _TABLE_3.get(row.dataset, {})
        return by_epsilon.get(round(row.params.get("epsilon", 0.0), 6))
    if row.params.get("variance", _VARIANCE) != _VARIANCE:
        return None
    return _TABLE_2.get(row.dataset, {}).get(row.input)
