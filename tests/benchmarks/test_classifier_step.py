import importlib
import json
import sys

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def classifier_step(benchmarks):
    return importlib.import_module("classifier_step")


def test_both_batch_norms_train_alike(classifier_step):
    batch = {
        "images": tf.random.stateless_uniform((2, 32, 32, 3), (0, 0)),
        "labels": tf.constant([0, 1], tf.int64),
    }
    losses, averages = [], []
    for is_fused in (False, True):
        trainer = classifier_step.trainer("resnet18", 2, "float32", is_fused)
        assert (trainer.training_model is trainer.model) != is_fused
        step = tf.function(trainer.train_step)
        first, _ = step(batch)
        layer = trainer.model.get_layer("stage_2_block_1_1_batch_norm")
        averages.append(layer.moving_variance.numpy())
        second, _ = step(batch)
        losses.append([float(first), float(second)])
    assert abs(losses[0][0] - losses[0][1]) > 0.01
    np.testing.assert_allclose(*losses, rtol=1e-2)
    np.testing.assert_allclose(*averages, rtol=1e-4)


def test_each_way_is_measured(classifier_step, monkeypatch, tmp_path, capsys):
    path = tmp_path / "report.json"
    options = "--classifiers=D --batch_size=2 --rounds=1 --steps=1".split()
    monkeypatch.setattr(sys, "argv", ["x", *options, f"--json={path}"])
    assert classifier_step.main() == 0
    ways = json.loads(path.read_text())["classifiers"]["D"]
    assert list(ways) == list(classifier_step.WAYS)
    first, *_ = ways.values()
    assert first["speedup"]["median"] == 1.0
    assert all(x["images_a_second"]["low"] > 0.0 for x in ways.values())
    assert "| bfloat16, Keras's batch norm | " in capsys.readouterr().out


def test_an_unknown_classifier_is_refused(classifier_step, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--classifiers=E"])
    with pytest.raises(SystemExit):
        classifier_step.main()
    assert "'E' is not one of A, B, C, D, densenet40" in capsys.readouterr().err
