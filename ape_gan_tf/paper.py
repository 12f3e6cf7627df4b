"""Figures of the APE-GAN paper, and how each of them is measured.

A table is a grid: its inputs (an attack with its parameters and the target
that the paper crafted it on) down, the defences across, and an error rate in
percent where they meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from ape_gan_tf.metrics import Row

VARIANCE = 0.05  # Of the Gaussian noise, Sec. 4.1.1.


@dataclasses.dataclass(frozen=True)
class Input:
    """Images to classify: one line of a table.

    Attributes:
        label: As printed.
        name: `clean`, `gaussian_noise` or an attack.
        params: Of the noise or the attack, where not our defaults.
        target: The paper's target for it; attacks are crafted on it.
    """

    label: str
    name: str
    params: tuple[tuple[str, Any], ...]
    target: str


@dataclasses.dataclass(frozen=True)
class Column:
    """Who is to classify them.

    Attributes:
        label: As printed.
        is_purified: Behind the purifier.
        is_hardened: By the adversarially trained classifier.
        crafted_on: `target`, the input's own, or `hardened`.
        is_top5: The top-5 error in place of the top-1.
    """

    label: str
    is_purified: bool
    is_hardened: bool = False
    crafted_on: str = "target"
    is_top5: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """One of the paper's tables, as far as it is about one dataset.

    Attributes:
        name: Its number, or `targets` for the errors in Sec. 4.1.2.
        dataset: A name of `data.DATASETS`.
        caption: What it shows.
        inputs: Its lines.
        columns: Its columns.
        figures: The paper's error for each line and column, or None.
        notes: What a reader must know.
    """

    name: str
    dataset: str
    caption: str
    inputs: tuple[Input, ...]
    columns: tuple[Column, ...]
    figures: tuple[tuple[float | None, ...], ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What the experiments on one dataset use (Sec. 4.1.1, 4.1.2)."""

    fgsm: str  # The target of FGSM and JSMA, and of Table 2.
    lbfgs: str  # The target of L-BFGS and DeepFool.
    cw: str  # The target of the three CW attacks.
    epsilon: float
    purifier: str


SETTINGS = {
    "mnist": _Setting("C", "A", "B", 0.3, "APE-GAN_m"),
    "cifar10": _Setting("densenet40", "resnet18", "D", 0.1, "APE-GAN_c"),
    "image_folder": _Setting(
        "inception_v3", "resnet50", "inception_v3", 8 / 255, "APE-GAN_i"
    ),
}
HARDENED = "_adversarial"  # Ends the name of an adversarially trained target.


def hardened(dataset: str) -> str:
    """The name of the adversarially trained classifier of a dataset.

    There is one: Table 7's caption says that CIFAR-10's other attacks were
    measured on DenseNet40 too, the target of FGSM.
    """
    return SETTINGS[dataset].fgsm + HARDENED


# dataset -> attack -> target, APE-GAN, adversarial training, both together.
_TABLE_7: dict[str, dict[str, tuple[float | None, ...]]] = {
    "mnist": {
        "lbfgs": (93.4, 2.2, 2.6, 2.0),
        "fgsm": (96.3, 2.8, 6.6, 2.6),
        "deepfool": (97.1, 2.2, 3.7, 2.1),
        "jsma": (97.8, 38.6, 33.6, 21.0),
        "cw_l0": (100.0, 27.0, 15.5, 9.5),
        "cw_l2": (100.0, 1.5, 2.5, 1.1),
        "cw_linf": (100.0, 1.2, 0.7, 0.5),
    },
    # Table 1 has 19.9 for L-BFGS behind APE-GAN_c, Table 7 has 19.0.
    "cifar10": {
        "lbfgs": (92.7, 19.0, None, None),
        "fgsm": (77.8, 26.4, 12.2, 23.7),
        "deepfool": (98.3, 19.2, None, None),
        "jsma": (94.1, 38.3, 55.3, 32.3),
        "cw_l0": (100.0, 46.9, None, None),
        "cw_l2": (100.0, 30.5, None, None),
        "cw_linf": (100.0, 32.2, None, None),
    },
    "image_folder": {
        "lbfgs": (93.3, 42.9),
        "fgsm": (72.9, 40.1),
        "deepfool": (98.4, 45.9),
        "jsma": (98.7, 45.0),
        "cw_l0": (100.0, 29.4),
        "cw_l2": (99.7, 26.1),
        "cw_linf": (100.0, 27.0),
    },
}
# Sec. 4.1.2; APE-GAN's are not given.
_TARGETS: dict[str, dict[str, tuple[float | None, ...]]] = {
    "mnist": {"A": (0.9, None), "B": (0.5, None), "C": (0.8, None)},
    "cifar10": {
        "resnet18": (7.1, None),
        "D": (20.2, None),
        "densenet40": (9.9, None),
    },
    "image_folder": {
        "resnet50": (24.4, None, 7.2, None),
        "inception_v3": (22.9, None, 6.1, None),
    },
}
_TABLE_2 = {
    "mnist": ((0.8, 1.2), (1.7, 1.6)),
    "cifar10": ((9.9, 10.3), (11.3, 10.7)),
    "image_folder": ((22.9, 24.0), (25.2, 24.5)),
}
# Table 3 is its first two columns.
_TABLE_8 = {
    "mnist": {
        0.1: (35.9, 0.8, 1.6, 0.6),
        0.2: (86.0, 1.1, 3.4, 1.0),
        0.3: (96.3, 2.8, 6.6, 2.6),
        0.4: (98.0, 21.0, 59.8, 17.7),
    },
    "cifar10": {
        0.1: (77.8, 26.4, 12.2, 23.7),
        0.2: (84.7, 45.2, 39.6, 36.4),
        0.3: (86.3, 55.9, 73.7, 53.7),
        0.4: (87.2, 63.4, 81.7, 63.2),
    },
}
# In 255ths; top-1 of InceptionV3 and APE-GAN_i, then top-5.
_TABLE_4 = {
    4: (72.2, 38.0, 41.7, 21.0),
    8: (72.9, 40.1, 42.3, 22.5),
    12: (73.4, 41.2, 43.4, 22.9),
    16: (74.8, 42.4, 44.0, 23.6),
}
_TABLE_9 = {
    "mnist": {
        0.1: (32.0, 1.9),
        0.2: (82.5, 2.5),
        0.3: (84.7, 4.5),
        0.4: (94.5, 22.3),
    },
    "cifar10": {
        0.1: (72.6, 26.5),
        0.2: (82.5, 38.3),
        0.3: (86.5, 51.7),
        0.4: (88.0, 71.0),
    },
}

# Sec. 4.1.1: "default parameters of other attacks are utilised". CleverHans 1
# sets no bound on JSMA's pixels (gamma is infinite). CW-L2 has a tenth of the
# published steps.
_ATTACKS: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "lbfgs": ("L-BFGS", ()),
    "fgsm": ("FGSM", ()),
    "deepfool": ("DeepFool", ()),
    "jsma": ("JSMA", (("theta", 1.0), ("gamma", 1.0))),
    "cw_l0": ("CW-L0", ()),
    "cw_l2": ("CW-L2", (("max_iterations", 1000),)),
    "cw_linf": ("CW-Linf", ()),
}
_READINGS = (
    "The paper does not say on which classifier the images of the columns with "
    "adversarial training were crafted: on the plain target (transferred), or "
    "on the adversarially trained one. Both are here, against one figure. "
    "Table 7's caption speaks for the first: it calls images from other "
    "targets transferred."
)


def _defences(dataset: str) -> tuple[Column, ...]:
    return (
        Column("target", is_purified=False),
        Column(SETTINGS[dataset].purifier, is_purified=True),
    )


def _top_1_and_5(dataset: str) -> tuple[Column, ...]:
    top_1 = _defences(dataset)
    top_5 = (
        dataclasses.replace(each, label=f"{each.label}, top-5", is_top5=True)
        for each in top_1
    )
    return (*top_1, *top_5)


def _hardened_columns(dataset: str, crafted_on: str) -> tuple[Column, Column]:
    whom = "the target" if crafted_on == "target" else "itself"
    purifier = SETTINGS[dataset].purifier
    return (
        Column(
            f"adversarial training, crafted on {whom}",
            is_purified=False,
            is_hardened=True,
            crafted_on=crafted_on,
        ),
        Column(
            f"{purifier} + adversarial training, crafted on {whom}",
            is_purified=True,
            is_hardened=True,
            crafted_on=crafted_on,
        ),
    )


def _both_readings(dataset: str) -> tuple[Column, ...]:
    return (
        *_hardened_columns(dataset, "target"),
        *_hardened_columns(dataset, "hardened"),
    )


def _attack_input(dataset: str, attack: str) -> Input:
    setting = SETTINGS[dataset]
    target = setting.cw
    if attack in ("fgsm", "jsma"):
        target = setting.fgsm
    elif attack in ("lbfgs", "deepfool"):
        target = setting.lbfgs
    label, params = _ATTACKS[attack]
    if attack == "fgsm":
        params = (("epsilon", setting.epsilon),)
    return Input(label, attack, params, target)


def _fgsm_input(dataset: str, epsilon: float, label: str) -> Input:
    params = (("epsilon", epsilon),)
    return Input(label, "fgsm", params, SETTINGS[dataset].fgsm)


def _fgsm_inputs(dataset: str) -> tuple[Input, ...]:
    """The lines of Tables 3 and 8."""
    epsilons = _TABLE_8[dataset]
    return tuple(_fgsm_input(dataset, e, f"epsilon {e:g}") for e in epsilons)


def _table_1(dataset: str) -> Table:
    figures = {name: row[:2] for name, row in _TABLE_7[dataset].items()}
    if dataset == "cifar10":
        figures["lbfgs"] = (92.7, 19.9)
    return Table(
        "1",
        dataset,
        "Adversarial images of each attack, on the paper's target for it",
        tuple(_attack_input(dataset, name) for name in figures),
        _defences(dataset),
        tuple(figures.values()),
    )


def _table_2(dataset: str) -> Table:
    target = SETTINGS[dataset].fgsm
    noise = (("variance", VARIANCE),)
    return Table(
        "2",
        dataset,
        f"Images that nobody attacked, target {target}",
        (
            Input("clean", "clean", (), target),
            Input("Gaussian noise", "gaussian_noise", noise, target),
        ),
        _defences(dataset),
        _TABLE_2[dataset],
    )


def _table_3(dataset: str) -> Table:
    return Table(
        "3",
        dataset,
        f"FGSM of growing epsilon, target {SETTINGS[dataset].fgsm}",
        _fgsm_inputs(dataset),
        _defences(dataset),
        tuple(row[:2] for row in _TABLE_8[dataset].values()),
    )


def _table_4() -> Table:
    dataset = "image_folder"
    return Table(
        "4",
        dataset,
        f"FGSM of growing epsilon, target {SETTINGS[dataset].fgsm}",
        tuple(
            _fgsm_input(dataset, e / 255, f"epsilon {e}/255") for e in _TABLE_4
        ),
        _top_1_and_5(dataset),
        tuple(_TABLE_4.values()),
    )


def _targets(dataset: str) -> Table:
    columns = _defences(dataset)
    if dataset == "image_folder":
        columns = _top_1_and_5(dataset)
    return Table(
        "targets",
        dataset,
        "Clean images, each target (Sec. 4.1.2)",
        tuple(Input(name, "clean", (), name) for name in _TARGETS[dataset]),
        columns,
        tuple(_TARGETS[dataset].values()),
    )


def _table_7(dataset: str) -> Table:
    rows = _TABLE_7[dataset]
    inputs = tuple(_attack_input(dataset, name) for name in rows)
    caption = "Each attack, with adversarial training"
    return _in_both_readings("7", dataset, caption, inputs, rows.values())


def _table_8(dataset: str) -> Table:
    rows = _TABLE_8[dataset]
    caption = "FGSM of growing epsilon, with adversarial training"
    inputs = _fgsm_inputs(dataset)
    return _in_both_readings("8", dataset, caption, inputs, rows.values())


def _in_both_readings(
    name: str,
    dataset: str,
    caption: str,
    inputs: tuple[Input, ...],
    rows: Iterable[tuple[float | None, ...]],
) -> Table:
    """A table whose last two columns are measured in two ways each."""
    return Table(
        name,
        dataset,
        caption,
        inputs,
        (*_defences(dataset), *_both_readings(dataset)),
        tuple((*row, *row[2:]) for row in rows),
        (_READINGS,),
    )


def _table_9(dataset: str) -> Table:
    rows = _TABLE_9[dataset]

    def line(alpha: float, epsilon: float, label: str) -> Input:
        return Input(
            label,
            "iterative_gradient_sign",
            (("epsilon", epsilon), ("alpha", alpha), ("steps", 2)),
            SETTINGS[dataset].fgsm,
        )

    return Table(
        "9",
        dataset,
        "Iterative gradient sign, two steps of alpha, with adversarial "
        "training",
        (
            *(line(a, 2 * a, f"alpha {a:g}") for a in rows),
            *(line(a, a, f"alpha {a:g}, epsilon {a:g}") for a in rows),
        ),
        _both_readings(dataset),
        (
            *((*row, None, None) for row in rows.values()),
            *((None,) * 4 for _ in rows),
        ),
        (
            "The paper's images are crafted on the target, says its caption; "
            "those crafted on the adversarially trained classifier are ours.",
            "The paper does not give Table 9's epsilon. It is 2 alpha here, "
            "as far as two steps go; in the last four lines it is alpha.",
        ),
    )


def tables(dataset: str) -> tuple[Table, ...]:
    """The paper's tables about a dataset, in order; first its targets.

    Raises:
        KeyError: The paper has none about it.
    """
    if dataset == "image_folder":
        return (
            _targets(dataset),
            _table_1(dataset),
            _table_2(dataset),
            _table_4(),
        )
    makers = (
        _targets,
        _table_1,
        _table_2,
        _table_3,
        _table_7,
        _table_8,
        _table_9,
    )
    return tuple(make(dataset) for make in makers)


def find(dataset: str, name: str) -> Table:
    """The table of that name about a dataset.

    Raises:
        KeyError: The paper has none.
    """
    return {table.name: table for table in tables(dataset)}[name]


def clean_error(
    dataset: str, target: str, *, is_top5: bool = False
) -> float | None:
    """The error of a target on clean images (Sec. 4.1.2).

    Args:
        dataset: A name of `data.DATASETS`.
        target: One of the dataset's targets, or any other name.
        is_top5: The top-5 error in place of the top-1.

    Returns:
        In percent; None where the paper has none.
    """
    figures = _TARGETS[dataset].get(target, ())
    place = 2 if is_top5 else 0
    return figures[place] if place < len(figures) else None


def classifiers(dataset: str) -> tuple[str, ...]:
    """The classifiers that a dataset's tables are about, by name."""
    return (*_TARGETS[dataset], hardened(dataset))


REMARKS = {
    "mnist": "The paper's figures are for target C and APE-GAN_m.",
    "cifar10": (
        "The paper's figures are for DenseNet40 and APE-GAN_c: where the "
        "classifier here is another, they are a landmark, not a comparison."
    ),
}


def errors(row: Row) -> Sequence[float | None] | None:
    """The paper's (target error, APE-GAN error) for a row, where it has them.

    Those of Tables 2 and 3, for benign and oblivious rows on test images; the
    paper's other attacks are on other targets.
    """
    if row.split != "test" or row.threat_model not in ("benign", "oblivious"):
        return None
    if row.dataset not in REMARKS or row.params.get("epsilon_min") is not None:
        return None
    for table in (_table_2(row.dataset), _table_3(row.dataset)):
        for line, figures in zip(table.inputs, table.figures, strict=True):
            if _is_input(line, row):
                return figures
    return None


def _is_input(line: Input, row: Row) -> bool:
    return line.name == row.input and all(
        round(row.params.get(name, value), 6) == value
        for name, value in line.params
    )
