"""What a purifier's training is told."""

from __future__ import annotations

import dataclasses

import keras

import models
from ape_gan_tf import losses
from ape_gan_tf.adversaries import ADVERSARIES, NEED_CLASSIFIER, Crafting
from ape_gan_tf.choices import (
    ADVERSARY_METHODS,
    CONSISTENCIES,
    PRECISIONS,
    SCHEDULES,
)
from ape_gan_tf.shares import parse_shares, split_rows
from data.checks import (
    check_in_range,
    check_non_negative_integer,
    check_one_of,
    check_positive_integer,
)

_WEIGHTS = (
    "content_weight",
    "adversarial_weight",
    "classification_weight",
    "guide_weight",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurifierConfig:
    """All that decides what a purifier becomes; the defaults are the paper's.

    Attributes:
        generator: `ape_gan_m`, `ape_gan_c` or `ape_gan_i` (Table 6), or
            `purifier_resnet`, a residual one.
        generator_width: Channels of `purifier_resnet` in its first level; None
            is its default.
        generator_depth: Residual blocks of a level; None is its default.
        generator_stride: They work at the resolution divided by this; None is
            full resolution.
        generator_levels: Each has blocks of its own, at half the resolution
            and with twice the channels of the one before; None is one.
        generator_skip: Whether it adds what it computes to the image, and
            begins at the identity.
        generator_classes: How many classes it guesses among, to paint by the
            guess; None is no guess. It needs `generator_skip`.
        epochs: Passes over the adversarial set; the last batch of each is
            dropped where it is not full.
        batch_size: 64 in the paper (16 on ImageNet).
        learning_rate: Of both optimizers (Adam), 2e-4 in the paper.
        adam_beta1: Not given in the paper; 0.5 in the released code.
        schedule: One of `SCHEDULES`, see `optimizers.learning_rate_schedule`.
        content_loss: `mse` (Eq. 13) or `root_mse` (released code).
        content_weight: xi_1 of Eq. 12.
        adversarial_weight: xi_2 of Eq. 12.
        generator_steps: Generator steps an iteration; two in Sec. 4.1.3.
        kernel_size: 3 in Table 6, 5 in the released code.
        decoder_activation: `leaky_relu`, or `relu` as in the released code.
        output: `sigmoid`, or `tanh` on [-1, 1] as in the released code; the
            content loss is taken in the output's own range.
        batch_norm_momentum: Of the moving averages used outside training.
        training_crop: Side of the random square of each pair that a step is
            on; None takes the whole images. The generators are convolutional:
            the purifier is for whole images all the same.
        training_shift: Each pair is moved by up to so many pixels, both images
            alike, anew in each step; what moves in is black.
        training_flip: Every second pair or so is mirrored, both images alike.
        training_noise_fraction: Share of the stored pairs, drawn anew in each
            step, whose adversarial image gives way to the clean one with
            Gaussian noise, clipped to [0, 1]; the paper has none.
        training_noise_variance: The variance of an image's noise is drawn
            from [0, training_noise_variance].
        training_sparse_fraction: Share of the stored pairs, drawn anew in each
            step, whose perturbation is kept at random positions alone and made
            strong there; the paper has none. It needs no other attack.
        training_sparse_density: The share of such positions in an image is
            drawn from [0, training_sparse_density].
        adversary: Who makes the adversarial images of a batch: `stored`, the
            training set's, the paper's; `online`, an attack on the classifier
            alone in each step; `white_box`, one through the purifier and the
            classifier; `content`, one on the purifier alone that drives its
            output from the clean image; `guide`, one on the generator's own
            guess; or a weighted mixture, `white_box:3,stored:1`.
        adversary_method: `pgd`, or `free` (Shafahi et al. 2019): the
            gradient of each generator step but the last moves the white-box
            images once, up the generator's whole loss, by the step size of
            `Crafting`. A deviation: a batch's perturbations are not where the
            next one begins.
        adversary_epsilon: Radius of the ball of what is crafted here, and
            the other `adversary_` settings: see `Crafting`.
        classification_weight: Of the frozen classifier's loss on purified
            images, adversarial and clean; the paper has none.
        classification_q: Of that loss where it is of labels: 0 for the
            cross-entropy, up to 1 for the bounded, generalised one (Zhang and
            Sabuncu 2018), see `losses.classification_loss`.
        guide_weight: Of the cross-entropy of the generator's own guess, on the
            same images; it needs no classifier.
        clean_fraction: Share of a batch's clean images that are purified
            beside the adversarial ones, in the content and the classifier's
            loss, and in that of the guess; None is all where one of these two
            is used, else none.
        consistency: `labels`: the classifier's loss is the cross-entropy of
            the label; `kl`: the divergence from its own answer for the clean
            image, which needs no labels; `guide`: the cross-entropy of the
            class that the generator guesses, which is what the classifier is
            to answer. It trains the layers behind the guess; those in front
            stay as they are in the purifier that training begins with.
            Adversaries still lead away from the label.
        ema_decay: Of the moving average of the generator's weights, which
            then is the purifier; 0 for none.
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
        seed: Of the initial weights, of the order of the data and of all that
            is drawn in a step.
    """

    generator: str = "ape_gan_m"
    generator_width: int | None = None
    generator_depth: int | None = None
    generator_stride: int | None = None
    generator_levels: int | None = None
    generator_skip: bool = False
    generator_classes: int | None = None
    epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 2e-4
    adam_beta1: float = 0.9
    schedule: str = "constant"
    content_loss: str = "mse"
    content_weight: float = 0.7
    adversarial_weight: float = 0.3
    generator_steps: int = 2
    kernel_size: int = 3
    decoder_activation: str = "leaky_relu"
    output: str = "sigmoid"
    batch_norm_momentum: float = 0.99
    training_crop: int | None = None
    training_shift: int = 0
    training_flip: bool = False
    training_noise_fraction: float = 0.0
    training_noise_variance: float = 0.05
    training_sparse_fraction: float = 0.0
    training_sparse_density: float = 0.1
    adversary: str = "stored"
    adversary_method: str = "pgd"
    adversary_epsilon: float = 0.3
    adversary_norm: str = "linf"
    adversary_steps: int = 7
    adversary_step_size: float | None = None
    adversary_warmup: float = 0.0
    adversary_starts: str = "clean,random,stored"
    classification_weight: float = 0.0
    classification_q: float = 0.0
    guide_weight: float = 0.0
    clean_fraction: float | None = None
    consistency: str = "labels"
    ema_decay: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of(self.generator, models.GENERATORS, "generator")
        check_one_of(self.content_loss, losses.CONTENT_LOSSES, "content_loss")
        check_one_of(self.schedule, SCHEDULES, "schedule")
        check_one_of(self.precision, PRECISIONS, "precision")
        for name in ("epochs", "batch_size", "generator_steps"):
            check_positive_integer(getattr(self, name), name)
        check_in_range(self.learning_rate, 0.0, 10.0, "learning_rate")
        # At 1 Adam divides by zero.
        check_in_range(self.adam_beta1, 0.0, 0.9999, "adam_beta1")
        for name in _WEIGHTS:
            check_in_range(getattr(self, name), 0.0, 1e6, name)
        if not any(getattr(self, name) for name in _WEIGHTS):
            raise ValueError(
                f"one of {', '.join(_WEIGHTS)} must be above 0, got 0 for all"
            )
        for name in (
            "training_noise_fraction",
            "training_noise_variance",
            "training_sparse_fraction",
            "training_sparse_density",
        ):
            check_in_range(getattr(self, name), 0.0, 1.0, name)
        check_non_negative_integer(self.training_shift, "training_shift")
        if self.training_crop is not None:
            check_positive_integer(self.training_crop, "training_crop")
        if self.clean_fraction is not None:
            check_in_range(self.clean_fraction, 0.0, 1.0, "clean_fraction")
            if self.clean_fraction and not self.clean_count:
                raise ValueError(
                    "clean_fraction must be 0, or enough for an image of a "
                    f"batch of {self.batch_size}, got {self.clean_fraction}"
                )
        check_in_range(self.ema_decay, 0.0, 0.999999, "ema_decay")
        self._check_consistency()
        self._check_adversary()
        if self.training_crop is not None and self.needs_classifier:
            raise ValueError(
                "training_crop must be None where training looks at the "
                "classifier, which takes whole images; got "
                f"{self.training_crop}"
            )

    def _check_adversary(self) -> None:
        check_one_of(
            self.adversary_method, ADVERSARY_METHODS, "adversary_method"
        )
        rows = self.rows()
        shares = self.crafting().shares_of_starts()
        self._check_guide(rows)
        if self.adversary_method == "free":
            self._check_free(rows)
        if "stored" not in {*rows, *shares}:
            self._refuse_changes_of_stored()
        for name, part in rows.items():
            if name != "stored":
                count = part.stop - part.start
                split_rows(count, shares, "adversary_starts")

    def _check_guide(self, rows: dict[str, slice]) -> None:
        if self.generator_classes is not None:
            check_positive_integer(self.generator_classes, "generator_classes")
            return
        needing = {
            "adversary": self.adversary if "guide" in rows else None,
            "guide_weight": self.guide_weight,
            "consistency": "guide" if self.consistency == "guide" else None,
        }
        for name, value in needing.items():
            if value:
                raise ValueError(
                    f"generator_classes must be given where {name} is "
                    f"{value!r}, got None"
                )

    def _check_consistency(self) -> None:
        check_one_of(self.consistency, CONSISTENCIES, "consistency")
        check_in_range(self.classification_q, 0.0, 1.0, "classification_q")
        if self.classification_q and self.consistency != "labels":
            raise ValueError(
                "classification_q must be 0 where consistency is "
                f"{self.consistency}, got {self.classification_q}"
            )
        if self.consistency == "guide" and not self.classification_weight:
            raise ValueError(
                "classification_weight must be above 0 where consistency is "
                f"guide, got {self.classification_weight}"
            )
        if self.consistency == "guide" and self.guide_weight:
            raise ValueError(
                "guide_weight must be 0 where consistency is guide, which "
                f"leaves the guess as it is, got {self.guide_weight}"
            )

    def _check_free(self, rows: dict[str, slice]) -> None:
        if "white_box" not in rows:
            raise ValueError(
                "adversary must have white_box where adversary_method is "
                f"free, got {self.adversary!r}"
            )
        # Else the gradient that moves the images knows no classifier.
        if not self.classification_weight:
            raise ValueError(
                "classification_weight must be above 0 where adversary_method "
                f"is free, got {self.classification_weight}"
            )
        # Else it leads away from the guess, which is to be followed.
        if self.consistency == "guide":
            raise ValueError(
                "consistency must be labels or kl where adversary_method is "
                f"free, got {self.consistency}"
            )
        # With one step, none is left that would see them moved.
        if self.generator_steps < 2:
            raise ValueError(
                "generator_steps must be at least 2 where adversary_method is "
                f"free, got {self.generator_steps}"
            )

    def _refuse_changes_of_stored(self) -> None:
        for name in ("training_noise_fraction", "training_sparse_fraction"):
            if getattr(self, name):
                raise ValueError(
                    f"{name} must be 0 where neither adversary nor "
                    "adversary_starts has stored, whose images it is of, got "
                    f"{getattr(self, name)}"
                )

    def rows(self) -> dict[str, slice]:
        """Which rows of a batch are whose, in order."""
        shares = parse_shares(self.adversary, ADVERSARIES, "adversary")
        return split_rows(self.batch_size, shares, "adversary")

    def crafting(self) -> Crafting:
        """How images are crafted in training."""
        return Crafting(
            epsilon=self.adversary_epsilon,
            norm=self.adversary_norm,
            steps=self.adversary_steps,
            step_size=self.adversary_step_size,
            warmup=self.adversary_warmup,
            starts=self.adversary_starts,
            seed=self.seed,
        )

    @property
    def clean_count(self) -> int:
        """How many of a batch's clean images are purified too."""
        fraction = self.clean_fraction
        if fraction is None:
            is_labelled = self.classification_weight or self.guide_weight
            fraction = 1.0 if is_labelled else 0.0
        return round(fraction * self.batch_size)

    @property
    def needs_classifier(self) -> bool:
        """Whether training looks at the classifier, not at its pairs alone."""
        return self.classification_weight > 0 or not NEED_CLASSIFIER.isdisjoint(
            self.rows()
        )

    def check_guess(self, classes: int, *, has_initial: bool) -> None:
        """Checks that the classifier can follow the generator's guess.

        Args:
            classes: Those of the classifier.
            has_initial: Whether training begins with a purifier's weights.

        Raises:
            ValueError: It should, and the guess is among another number, or
                was never trained.
        """
        if self.consistency != "guide":
            return
        if classes != self.generator_classes:
            raise ValueError(
                "generator_classes must be those of the classifier where "
                f"consistency is guide, {classes}, got {self.generator_classes}"
            )
        if not has_initial:
            raise ValueError(
                "initial_purifier must be given where consistency is guide, "
                "which trains no guess, got None"
            )

    def training_shape(
        self, image_shape: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        """The shape that a step is on, of images of that shape.

        Raises:
            ValueError: `training_crop` is larger than they are, or no size
                that the generator takes; or `training_shift` may move all of
                an image out of it.
        """
        height, width, channels = image_shape
        if self.training_shift >= min(height, width):
            raise ValueError(
                "training_shift must be less than the images' sides, "
                f"{height}x{width}, got {self.training_shift}"
            )
        side = self.training_crop
        if side is None:
            return image_shape
        if side > min(height, width):
            raise ValueError(
                "training_crop must be at most the images' sides, "
                f"{height}x{width}, got {side}"
            )
        return side, side, channels

    def build_generator(self, image_shape: tuple[int, int, int]) -> keras.Model:
        """The purifier's network, with freshly drawn weights."""
        return models.generator(
            self.generator,
            image_shape,
            kernel_size=self.kernel_size,
            decoder_activation=self.decoder_activation,
            output=self.output,
            batch_norm_momentum=self.batch_norm_momentum,
            width=self.generator_width,
            depth=self.generator_depth,
            stride=self.generator_stride,
            levels=self.generator_levels,
            skip=self.generator_skip,
            classes=self.generator_classes,
            seed=2 * self.seed,
        )

    def build_discriminator(
        self, image_shape: tuple[int, int, int]
    ) -> keras.Model:
        return models.discriminator(
            self.generator,
            image_shape,
            kernel_size=self.kernel_size,
            batch_norm_momentum=self.batch_norm_momentum,
            seed=2 * self.seed + 1,
        )
