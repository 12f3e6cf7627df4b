"""Which classifier a purifier was trained with, beside it and in reports."""

import json

import pytest

import models
from ape_gan_tf import training_record

TRAINED_WITH = {"name": "C", "fingerprint": "f" * 64, "adversary": "white_box"}
NETWORK = (
    "--generator=purifier_resnet",
    "--generator_width=4",
    "--generator_depth=1",
    "--generator_stride=2",
    "--generator_skip",
    "--generator_classes=10",
)


@pytest.fixture(scope="module")
def hardened(tiny_run, tmp_path_factory, command):
    """`train` against every adversary, before the classifier of `tiny_run`."""
    workdir = tmp_path_factory.mktemp("hardened") / "run"
    code = command(
        "train",
        f"--workdir={workdir}",
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--adversarial_set={tiny_run.workdir / 'adversarial' / 'train'}",
        "--adversary=white_box:2,content,online,guide,stored",
        "--adversary_steps=2",
        "--adversary_epsilon=0.2",
        "--adversary_warmup=0.5",
        "--adversary_starts=clean,random",
        "--classification_weight=1",
        "--guide_weight=0.5",
        "--clean_fraction=0.5",
        "--adversarial_weight=0",
        "--generator_steps=1",
        "--ema_decay=0.9",
        *NETWORK,
        "--epochs=2",
        "--batch_size=16",
        "--limit=64",
        "--eval_limit=16",
        "--epsilons=0.2",
        "--seed=1",
    )
    assert code == 0
    return workdir


def test_a_report_says_what_a_purifier_was_trained_with(hardened, tiny_run):
    classifier = models.Classifier.load(tiny_run.workdir / "classifier")
    found = json.loads((hardened / "training.json").read_text())
    assert found["trained_with"] == {
        "name": classifier.name,
        "fingerprint": classifier.fingerprint,
        "adversary": "white_box:2,content,online,guide,stored",
    }
    report = (hardened / "report.md").read_text()
    assert f"({classifier.fingerprint}), the one measured here" in report


def test_the_generator_is_loaded_like_others(hardened):
    purifier = models.Purifier.load(hardened / "purifier.keras")
    exported = models.Purifier.load(hardened / "purifier")
    assert purifier.name == "purifier_resnet"
    assert purifier.fingerprint == exported.fingerprint
    assert purifier.image_shape == exported.image_shape


def test_evaluate_says_so_of_another_classifier(
    hardened, tmp_path, command, capsys
):
    other = models.target("B", (28, 28, 1), 10, seed=3)
    other.save(tmp_path / "other.keras")
    code = command(
        "evaluate",
        f"--workdir={tmp_path / 'measured'}",
        f"--classifier={tmp_path / 'other.keras'}",
        f"--purifier={hardened / 'purifier.keras'}",
        "--limit=4",
        "--attacks=fgsm",
        "--epsilons=0.2",
        "--nocurve",
    )
    assert code == 0
    report = (tmp_path / "measured" / "report.md").read_text()
    assert "not the one measured here" in report
    assert "adversary white_box:2,content,online,guide,stored" in report


def test_pairs_alone_leave_nothing_to_tell(tmp_path, tiny_run):
    classifier = models.Classifier.load(tiny_run.workdir / "classifier")
    assert training_record.notes(None, classifier) == {}
    assert training_record.read(str(tmp_path / "purifier.keras")) is None
    assert training_record.read("ape_gan_m") is None
    training_record.write(tmp_path, TRAINED_WITH)
    found = training_record.read(str(tmp_path / "purifier.keras"))
    assert found == TRAINED_WITH


def test_a_record_remembers_the_classifiers_of_the_weights_it_began_with(
    tiny_run,
):
    joined = training_record.joined
    other = {**TRAINED_WITH, "name": "B", "fingerprint": "e" * 64}
    assert joined(None, None) is None
    assert joined(TRAINED_WITH, None) == TRAINED_WITH
    # Trained on pairs alone afterwards, it still has seen that classifier.
    assert joined(None, TRAINED_WITH) == TRAINED_WITH
    assert joined(TRAINED_WITH, dict(TRAINED_WITH)) == TRAINED_WITH
    both = joined(TRAINED_WITH, other)
    assert both == {**TRAINED_WITH, "initial": other}
    assert joined({**TRAINED_WITH, "adversary": "online"}, both) == {
        **both,
        "adversary": "online",
    }
    classifier = models.Classifier.load(tiny_run.workdir / "classifier")
    said = training_record.notes(both, classifier)
    assert list(said) == ["trained with", "trained with, earlier"]
    assert said["trained with, earlier"].startswith(f"B ({'e' * 64}), not")


def test_a_purifier_that_goes_on_from_a_hardened_one_says_so(
    hardened, tiny_run, tmp_path, command, capsys
):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--adversarial_set={tiny_run.workdir / 'adversarial' / 'train'}",
        f"--initial_purifier={hardened / 'purifier.keras'}",
        "--adversarial_weight=0",
        "--generator_steps=1",
        "--epochs=1",
        "--batch_size=16",
        "--limit=64",
        "--eval_limit=16",
        "--epsilons=0.2",
    ]
    # Found before a step is made, not when the training begins.
    other = tmp_path / "other"
    assert command("train", f"--workdir={other}", *words) == 1
    assert "initial_purifier must be" in capsys.readouterr().err
    assert not (other / "checkpoints").exists()
    workdir = tmp_path / "run"
    assert command("train", f"--workdir={workdir}", *words, *NETWORK) == 0
    again = training_record.read(str(workdir / "purifier.keras"))
    assert again == training_record.read(str(hardened / "purifier.keras"))
    assert "the one measured here" in (workdir / "report.md").read_text()


def test_a_guess_among_too_few_classes_is_refused(
    tiny_run, tmp_path, command, capsys
):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--workdir={tmp_path / 'run'}",
        *NETWORK,
        "--generator_classes=9",
    ]
    assert command("train", *words) == 1
    assert "generator_classes must be at least 10" in capsys.readouterr().err
    assert not (tmp_path / "run" / "adversarial").exists()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (11, "generator_classes must be those"),
        (10, "initial_purifier must be given"),
    ],
)
def test_a_guess_that_cannot_be_followed_is_refused_before_crafting(
    tiny_run, tmp_path, command, capsys, classes, message
):
    words = [
        f"--classifier={tiny_run.workdir / 'classifier'}",
        f"--workdir={tmp_path / 'run'}",
        *NETWORK,
        f"--generator_classes={classes}",
        "--consistency=guide",
        "--classification_weight=1",
    ]
    assert command("train", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "adversarial").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(ValueError, match="training.json must say trained_wi"):
        training_record.read(str(tmp_path / "purifier.keras"))
