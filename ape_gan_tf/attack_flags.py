"""Flags that say which attacks to craft or to measure under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from ape_gan_tf.command_line import UsageError

if TYPE_CHECKING:  # They import TensorFlow, which takes seconds.
    import attacks
    from ape_gan_tf.measurement import Measurement


def attack(name: str, params: str, **settings: Any) -> attacks.Attack:
    """An attack of `--attack_params`, and of what other flags say.

    Raises:
        UsageError: `params` has what another flag says.
        ValueError: The attack or a parameter is unknown, or does not fit.
    """
    import attacks

    return _attack(name, attacks.parse_params(params), settings)


def _attack(
    name: str, params: dict[str, Any], settings: dict[str, Any]
) -> attacks.Attack:
    import attacks

    for each in settings:
        if each in params:
            flag = "epsilons" if each == "epsilon" else each
            raise UsageError(
                f"--attack_params must not have {each}, which --{flag} says"
            )
    return attacks.get(name, **params, **settings)


def _params_by_attack(
    names: Sequence[str], text: str
) -> dict[str, dict[str, Any]]:
    """`steps=5,pgd.steps=100`: what all get, and what one of them does.

    Raises:
        UsageError: It is for an attack that is not asked for.
        ValueError: It is not of this form.
    """
    import attacks

    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in attacks.parse_params(text).items():
        attack_name, dot, param = key.rpartition(".")
        if not dot:
            common[param] = value
        elif attack_name in own:
            own[attack_name][param] = value
        else:
            raise UsageError(
                f"--attack_params has {key}, but --attacks has only "
                f"{', '.join(names)}"
            )
    return {name: {**common, **params} for name, params in own.items()}


def define_evaluation_flags(
    values: flags.FlagValues,
    attacks: Sequence[str] = ("fgsm",),
    threat_models: Sequence[str] = ("oblivious",),
) -> None:
    """Which attacks a purifier is measured under; the defaults are given."""
    flags.DEFINE_list(
        "attacks",
        list(attacks),
        "Attacks to measure under, by name.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "epsilons",
        ["0.1", "0.2", "0.3", "0.4"],
        "Each attack that has an epsilon is measured at each; fractions such "
        "as 8/255 are read.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "threat_models",
        list(threat_models),
        "oblivious: the attacker sees the classifier alone. white_box: the "
        "attacker sees the purifier too. transfer (of evaluate): the attacker "
        "has another classifier.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "noise_variance",
        0.05,
        "Variance of the Gaussian noise, in [0, 1] units.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )


def measurement(
    values: flags.FlagValues,
    *,
    split: str,
    limit: int | None = None,
    batch_size: int | None = None,
    attack_params: str = "",
) -> Measurement:
    """What to measure, by these flags: each attack at each epsilon.

    Attacks of smallest norm have no epsilon; each is measured once.
    """
    from ape_gan_tf.measurement import Measurement

    return Measurement(
        split=split,
        attacks=asked_attacks(values, batch_size, attack_params),
        threat_models=tuple(values.threat_models),
        noise_variance=values.noise_variance,
        limit=limit,
        batch_size=batch_size,
        seed=values.seed,
    )


def asked_attacks(
    values: flags.FlagValues, batch_size: int | None, attack_params: str
) -> tuple[attacks.Attack, ...]:
    """Each of `--attacks`, at each of `--epsilons` if it has one."""
    from ape_gan_tf.crafting import refuse_all_targets

    params = _params_by_attack(values.attacks, attack_params)
    settings = {"seed": values.seed, "batch_size": batch_size}
    asked = tuple(
        _attack(name, params[name], {**settings, **strength})
        for name in values.attacks
        for strength in _strengths(name, values.epsilons)
    )
    for each in asked:
        refuse_all_targets(each, "attacks")
    return asked


def _strengths(name: str, epsilons: list[str]) -> list[dict[str, float]]:
    import attacks

    numbers = parse_epsilons(epsilons)
    if not attacks.has_param(name, "epsilon"):
        return [{}]
    return [{"epsilon": number} for number in numbers]


def parse_epsilons(words: list[str]) -> list[float]:
    """`["0.1", "8/255"]` -> numbers.

    Raises:
        UsageError: One is not a number.
    """
    import attacks

    numbers = [attacks.parse_params(f"epsilon={w}")["epsilon"] for w in words]
    for word, number in zip(words, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise UsageError(f"--epsilons must be numbers, got {word!r}")
    return [float(number) for number in numbers]
