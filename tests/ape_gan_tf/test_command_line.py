"""Parsing: flagfiles, typing errors, exit codes."""

from pathlib import Path

import pytest
from absl import flags

from ape_gan_tf import command_line, flag_groups, train, train_classifier
from ape_gan_tf.command_line import UsageError, parse

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "flags").glob("*.flags"))


def define(values):
    flags.DEFINE_integer("epochs", 2, "How long.", 1, flag_values=values)
    flags.DEFINE_string("dataset", "digits", "Which.", flag_values=values)
    flags.DEFINE_list("epsilons", ["0.1"], "How far.", flag_values=values)
    flags.DEFINE_boolean("flip", True, "Or not.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Where.", flag_values=values)


def parsed(*words, define_flags=define):
    values = flags.FlagValues()
    define_flags(values)
    parse(values, ["program", *words])
    return values


def run(main, *words):
    return command_line.run(define, main, "What it does.", ["prog.py", *words])


def do_nothing(values):
    del values


# Flagfiles


@pytest.fixture
def flagfile(tmp_path):
    path = tmp_path / "my.flags"
    path.write_text("# A comment.\n--epochs=7\n--dataset=mnist\n")
    return path


@pytest.mark.parametrize(
    "form", ["--flagfile={}", "-flagfile={}", "--flagfile {}"]
)
def test_a_flagfile_is_read(flagfile, form):
    values = parsed(*form.format(flagfile).split())
    assert (values.epochs, values.dataset) == (7, "mnist")


def test_the_command_line_wins_wherever_it_stands(flagfile):
    words = ["--epochs=3", f"--flagfile={flagfile}"]
    for ordered in (words, words[::-1]):
        values = parsed(*ordered)
        assert (values.epochs, values.dataset) == (3, "mnist")


def test_a_later_flagfile_wins_over_an_earlier_one(flagfile, tmp_path):
    (tmp_path / "other.flags").write_text("--epochs=9\n")
    words = [f"--flagfile={flagfile}", f"--flagfile={tmp_path}/other.flags"]
    assert parsed(*words).epochs == 9
    assert parsed(*words).dataset == "mnist"


@pytest.mark.parametrize("name", ["mnist.flags", "flags/mnist.flags"])
def test_a_shipped_flagfile_is_found_from_anywhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    values = parsed(f"--flagfile={name}", define_flags=train.define_flags)
    assert values.dataset == "mnist"


def test_a_file_of_ones_own_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist.flags").write_text("--epochs=77\n")
    assert parsed("--flagfile=mnist.flags").epochs == 77


@pytest.mark.parametrize("name", ["mnits.flags", "other/mnist.flags", ""])
def test_a_flagfile_that_is_not_there_lists_the_shipped_ones(name):
    with pytest.raises(
        UsageError, match="does not exist; .* digits.flags, .* mnist.flags, "
    ):
        parsed(f"--flagfile={name}")


def dataset_of(path):
    """The dataset that a flagfile is called after."""
    name = path.name.split(".")[0].split("_")[0]
    return {"imagenet": "image_folder"}.get(name, name)


@pytest.mark.parametrize(
    "path",
    [path for path in SHIPPED if "_target_" not in path.name],
    ids=lambda path: path.name,
)
def test_every_shipped_flagfile_makes_a_configuration(path):
    values = parsed(f"--flagfile={path}", define_flags=train.define_flags)
    config = train.purifier_config(values)
    assert values.dataset == dataset_of(path)
    assert config.epochs == values.epochs


@pytest.mark.parametrize(
    "path",
    [path for path in SHIPPED if "_target_" in path.name],
    ids=lambda path: path.name,
)
def test_every_targets_flagfile_makes_a_configuration(path):
    values = parsed(
        f"--flagfile={path}", define_flags=train_classifier.define_flags
    )
    config = flag_groups.classifier_config(values, values.classifier)
    assert values.dataset == dataset_of(path)
    name = path.stem.partition("_target_")[2]
    assert config.classifier.lower() == name
    assert config.epochs == values.epochs


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_flagfiles_have_one_flag_a_line(path):
    for line in path.read_text().splitlines():
        assert line.startswith(("--", "#")) or not line


def test_the_papers_flagfile_is_literal():
    values = parsed(
        "--flagfile=mnist_paper.flags", define_flags=train.define_flags
    )
    config = train.purifier_config(values)
    # Sec. 4.1.3 and Table 6.
    assert (config.generator, config.kernel_size) == ("ape_gan_m", 3)
    assert (config.epochs, config.batch_size) == (2, 64)
    assert (config.learning_rate, config.schedule) == (2e-4, "constant")
    assert (config.content_loss, config.content_weight) == ("mse", 0.7)
    assert (config.adversarial_weight, config.generator_steps) == (0.3, 2)
    assert (config.output, config.decoder_activation) == (
        "sigmoid",
        "leaky_relu",
    )
    assert (values.attack, values.attack_params) == ("fgsm", "epsilon=0.3")


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_released_codes_flagfile_is_literal(dataset):
    values = parsed(
        f"--flagfile={dataset}_released.flags",
        define_flags=train.define_flags,
    )
    config = train.purifier_config(values)
    assert (config.content_loss, config.content_weight) == ("root_mse", 0.9)
    assert (config.adversarial_weight, config.adam_beta1) == (0.02, 0.5)
    assert (config.output, config.kernel_size) == ("tanh", 5)
    assert config.decoder_activation == "relu"


# Effective flags


def test_effective_flags_repeat_the_run(tmp_path):
    words = ["--epochs=5", "--epsilons=0.2,8/255", "--noflip", "--workdir=/x"]
    values = parsed(*words)
    text = command_line.effective_flags(values)
    assert (
        text == "--dataset=digits\n--epochs=5\n--epsilons=0.2,8/255\n--noflip\n"
    )
    (tmp_path / "flags.txt").write_text(text)
    again = parsed(f"--flagfile={tmp_path / 'flags.txt'}")
    assert command_line.effective_flags(again) == text


def test_values_with_spaces_survive_a_flagfile(tmp_path):
    values = parsed("--dataset=a folder with = and # in it")
    (tmp_path / "flags.txt").write_text(command_line.effective_flags(values))
    again = parsed(f"--flagfile={tmp_path / 'flags.txt'}")
    assert again.dataset == "a folder with = and # in it"


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epoch=3"], "unknown flag --epoch; did you mean --epochs?"),
        (["--epochs=0"], "--epochs=0"),
        (["--epochs=many"], "--epochs=many"),
        (["--epochs"], "Missing value for flag --epochs"),
        (["train"], "expected flags (--name=value), got 'train'"),
        (["--dataset", "a", "b"], "expected flags (--name=value), got 'b'"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(capsys, words, message):
    assert run(do_nothing, *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("prog: ") and message in captured.err
    assert "Traceback" not in captured.err


def test_an_unknown_flag_lists_the_valid_ones(capsys):
    assert run(do_nothing, "--zzz=1") == 2
    shown = capsys.readouterr().err
    assert "unknown flag --zzz\n" in shown
    for name in ("epochs", "dataset", "epsilons", "flip", "workdir", "help"):
        assert f"--{name}" in shown


def test_an_unknown_flag_in_a_flagfile_is_found_too(capsys, tmp_path):
    (tmp_path / "x.flags").write_text("--epoch=3\n")
    assert run(do_nothing, f"--flagfile={tmp_path / 'x.flags'}") == 2
    assert "unknown flag --epoch; did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        ValueError("what is wrong"),
        OSError("what is wrong"),
        RuntimeError("what is wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_expected_error_is_one_line_and_one(capsys, error):
    def main(values):
        raise error

    assert run(main) == 1
    assert capsys.readouterr().err == "prog: what is wrong\n"
    assert run(main, "--debug") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.endswith("prog: what is wrong\n")


def test_an_error_that_nobody_expected_is_a_traceback():
    def main(values):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_a_required_flag_is_asked_for(capsys):
    def main(values):
        command_line.require(values, "workdir", "dataset")

    assert run(main, "--dataset=") == 2
    shown = capsys.readouterr().err
    assert shown == "prog: --workdir and --dataset must be given\n"
    assert run(main, "--workdir=x") == 0


@pytest.mark.parametrize("word", ["--help", "-help"])
def test_help_says_what_it_does_and_lists_the_flags(capsys, word):
    assert run(lambda values: pytest.fail("it ran"), word) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("What it does.\n")
    assert "--epochs: How long." in shown


def test_an_error_out_of_a_data_pipeline_is_its_own_message(capsys, tmp_path):
    import tensorflow as tf

    def fail(number):
        raise ValueError(f"{tmp_path}: picture {number} is broken")

    def main(values):
        numbers = tf.data.Dataset.range(3)
        list(numbers.map(lambda n: tf.numpy_function(fail, [n], tf.int64)))

    assert run(main) == 1
    assert capsys.readouterr().err == f"prog: {tmp_path}: picture 0 is broken\n"
