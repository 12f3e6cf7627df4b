"""A stage's folder belongs to one configuration."""

import pytest

from ape_gan_tf.workdir import claim, refuse_orphans

CONFIG = {"epochs": 2, "set": {"seed": 1, "params": {"epsilon": 0.3}}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoints" / "config.json"
    claim(path, CONFIG)
    return path


def test_the_same_configuration_may_go_on(path):
    claim(path, CONFIG)
    claim(path, {"set": CONFIG["set"], "epochs": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, r"\(epochs was 2, now 3\): use another --workdir"),
        (
            {"set": {"seed": 1, "params": {"epsilon": 0.4}}},
            r"\(set.params.epsilon was 0.3, now 0.4\)",
        ),
        ({"new": "x"}, r"\(new was None, now 'x'\)"),
    ],
)
def test_another_configuration_is_refused_and_named(path, change, message):
    before = path.read_text()
    with pytest.raises(ValueError, match=message) as error:
        claim(path, {**CONFIG, **change})
    assert str(path.parent) in str(error.value)
    assert path.read_text() == before


def test_every_difference_is_named(path):
    with pytest.raises(ValueError, match="epochs was .*; set.seed was 1"):
        claim(path, {"epochs": 3, "set": {**CONFIG["set"], "seed": 2}})


def test_a_broken_file_is_named(path):
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        claim(path, CONFIG)


def test_a_product_without_its_configuration_is_refused(path):
    product = path.parent.parent / "purifier.keras"
    refuse_orphans(path, [product])
    product.touch()
    refuse_orphans(path, [product])
    path.unlink()
    with pytest.raises(ValueError, match=r"purifier\.keras exist without"):
        refuse_orphans(path, [product])
