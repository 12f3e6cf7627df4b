"""The benchmark of serving: its arithmetic, and small runs of its parts."""

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import ape_gan_tf
import models
from ape_gan_tf.serving import saved_model, warmup

SMALL = argparse.Namespace(rounds=1, seconds=0.0, seed=0, threads=1)


@pytest.fixture
def script(benchmarks):
    """The script as a module, which is not one of a package."""
    spec = importlib.util.spec_from_file_location(
        "benchmark_of_serving", benchmarks / "serving.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(benchmarks):
    return importlib.import_module("calls")


@pytest.fixture
def op_profile(benchmarks):
    return importlib.import_module("op_profile")


def timed(script, *seconds):
    """Rounds that took so long by the clock, and twice that of processors."""
    return [script.Timing(wall, 2 * wall) for wall in seconds]


def sleepers(log):
    def sleeper(name):
        def run():
            log.append(name)
            time.sleep(0.004)

        return run

    return {name: sleeper(name) for name in "ab"}


def test_contestants_take_turns_call_by_call(calls):
    log = []
    count, timings = calls.time_calls(sleepers(log), rounds=2, seconds=0.02)
    assert 1 <= count <= 5
    # One call each compiles, and one says how many fit.
    assert log == ["a", "b"] * (2 + 2 * count)
    assert [len(timings[name]) for name in "ab"] == [2, 2]
    assert all(each.wall >= 0.004 for each in timings["a"])


def test_contestants_take_turns_in_blocks(calls):
    log = []
    count, _ = calls.time_calls(
        sleepers(log), rounds=2, seconds=0.02, in_blocks=True
    )
    assert log == ["a", "b"] * 2 + (["a"] * count + ["b"] * count) * 2


def test_a_slow_contestant_is_called_once_a_round(calls):
    count, _ = calls.time_calls(sleepers([]), rounds=1, seconds=0.0)
    assert count == 1


def test_no_more_calls_than_it_takes(calls):
    count, _ = calls.time_calls(
        {"nothing": lambda: None}, rounds=1, seconds=60.0
    )
    assert count == calls.MOST_CALLS


def test_a_round_is_its_median_call(calls, script):
    # One call in three was interrupted.
    found = calls._median(timed(script, 0.002, 5.0, 0.001))
    assert (found.wall, found.cpu) == (0.002, 0.004)


@pytest.mark.parametrize(
    ("bare", "served", "what", "found", "reached"),
    [
        (1.0, 1.2, "latency", 1.2, True),
        (1.0, 1.21, "latency", 1.21, False),
        (0.95, 1.0, "throughput", 0.95, True),
        (0.94, 1.0, "throughput", 0.94, False),
    ],
)
def test_the_saved_model_is_judged_by_what_the_bare_function_takes(
    script, bare, served, what, found, reached
):
    row = script._against_the_bare(
        {
            "tf.function": timed(script, bare),
            "SavedModel": timed(script, served),
        },
        what,
    )
    assert row["found"].median == pytest.approx(found)
    assert row["reached"] is reached
    assert bool(script._failures({"saved_model": [row]})) is not reached


@pytest.mark.parametrize(("ours", "reached"), [(1.3, True), (1.31, False)])
def test_onnx_runtime_may_be_a_little_faster(script, ours, reached):
    row = script._against_onnx(
        {"SavedModel": timed(script, ours), "ONNX Runtime": timed(script, 1.0)}
    )
    assert row["found"].median == pytest.approx(ours)
    assert row["reached"] is reached


def test_slower_than_onnx_runtime_is_answered_by_a_profile(script):
    row = {"reached": False, "profile": {}}
    assert script._verdict(row) == "NOT REACHED; profile below"
    assert script._failures({"onnx": [row]}) == []


def test_an_answer_that_differs_is_not_timed(script):
    answers = {"ours": lambda x: x, "theirs": lambda x: x + np.float32(0.25)}
    with pytest.raises(
        ValueError, match=r"to 0.0001, got a difference of 0.25"
    ):
        script._difference("ape_gan_m", answers, np.zeros(3, np.float32))


def test_the_overhead_is_of_paired_rounds(script):
    # By round 50 % and 100 % more; of the medians it would be 80 %.
    found = script._more(
        {
            "alone": timed(script, 2.0, 3.0),
            "behind the purifier": timed(script, 3.0, 6.0),
        }
    )
    assert found["more_ms"] == script.Spread(2000.0, 1000.0, 3000.0)
    assert found["more_percent"].median == pytest.approx(75.0)
    assert found["more_cpu_percent"].median == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("ape_gan_m_1/encoder_1_1/convolution", "Conv2D", "encoder_1"),
        # ONNX Runtime: a convolution and what was joined to it.
        ("x/encoder_2_leaky_relu_1/LeakyRelu:0_nchwc", "Conv", "encoder_2"),
        ("x/decoder_1_1/conv_transpose", "Conv2DBackpropInput", "decoder_1"),
        ("x/decoder_2_1/conv_transpose", "ConvTranspose", "decoder_2"),
        ("x/decoder_2_1/conv_transpose__119", "Reshape", "other operations"),
        ("x/decoder_2_1/Tensordot/MatMul", "MatMul", "decoder_2"),
        ("x/encoder_1_batch_norm_1/batchnorm/Pad", "Pad", "between"),
        ("x/encoder_1_batch_norm_1/batchnorm/mul__75", "Reshape", None),
        ("x/encoder_1_batch_norm_1/batchnorm/mul_1", "Mul", "between"),
        ("x/sigmoid_1/Sigmoid", "Sigmoid", "between"),
        ("StatefulPartitionedCall/SelectV2", "SelectV2", "other operations"),
    ],
)
def test_an_operation_belongs_to_a_layer(op_profile, name, kind, part):
    expected = {None: op_profile.OTHER, "between": op_profile.BETWEEN}
    assert op_profile.part_of(name, kind) == expected.get(part, part)


def test_a_part_is_the_sum_of_the_medians_of_its_operations(op_profile):
    def events(name, kind, *milliseconds):
        return [op_profile.Event(name, kind, ms) for ms in milliseconds]

    found = op_profile.by_part(
        [
            *events("a/decoder_1_1/x", "ConvTranspose", 2.0, 3.0, 90.0),
            *events("a/encoder_1_1/x", "Conv2D", 1.0, 1.0, 1.0),
            *events("a/all", "All", 0.25, 0.25, 0.25),
            # Twice in each call.
            *events("a/any", "Any", 0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
        ],
        calls=3,
        seconds=0.006,
    )
    assert list(found.items()) == [
        ("encoder_1", 1.0),
        ("decoder_1", 3.0),
        ("other operations", 1.25),
        ("outside the operations", pytest.approx(0.75)),
        ("a call", 6.0),
    ]


@pytest.fixture(scope="module")
def purifier():
    return models.Purifier.from_keras(
        models.generator("ape_gan_m", (8, 8, 1), seed=0)
    )


LAYERS = ["encoder_1", "encoder_2", "decoder_1", "decoder_2"]


def test_tensorflow_says_what_each_layer_takes(
    script, op_profile, purifier, tmp_path
):
    answer = script._compiled(purifier, purifier.image_shape)
    images = np.zeros((4, 8, 8, 1), np.float32)
    found = op_profile.of_tensorflow(lambda: answer(images), 5, tmp_path)
    assert list(found)[:4] == LAYERS
    assert all(0.0 < found[layer] < found["a call"] for layer in LAYERS)


def test_onnx_runtime_answers_alike_and_says_what_each_layer_takes(
    script, op_profile, purifier, tmp_path
):
    onnx_generator = importlib.import_module("onnx_generator")
    if onnx_generator.missing():
        pytest.skip(onnx_generator.missing())
    path = tmp_path / "generator.onnx"
    onnx_generator.convert(purifier.keras_model, path)
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    session = onnx_generator.session(path, 1)
    (theirs,) = session.run(None, {"images": images})
    np.testing.assert_allclose(theirs, purifier.predict(images), atol=1e-6)
    found = op_profile.of_onnx_runtime(path, 1, images, 5, tmp_path)
    assert list(found)[:4] == LAYERS
    assert all(0.0 < found[layer] < found["a call"] for layer in LAYERS)


def test_what_one_profile_lacks_stands_where_the_other_has_it(script):
    ours = {"encoder_1": 1.0, "decoder_1": 3.0, "a call": 5.0}
    theirs = {"decoder_1": 1.0, "other operations": 0.5, "a call": 2.0}
    text = script._profile_text(
        {
            "generator": "ape_gan_m",
            "batch": 1,
            "profile": {"SavedModel": ours, "ONNX Runtime": theirs},
        }
    )
    assert text.splitlines()[2:] == [
        "| encoder_1 | 1.000 | 0.000 |",
        "| decoder_1 | 3.000 | 1.000 |",
        "| other operations | 0.000 | 0.500 |",
        "| a call | 5.000 | 2.000 |",
    ]


def test_files_are_timed_beside_arrays(script, exported):
    generator = script.Generator(
        ape_gan_tf.load_pretrained("ape_gan_m"),
        exported,
        tf.saved_model.load(str(exported)),
    )
    rows = script._measure_encoded(SMALL, {"ape_gan_m": generator})
    assert [row["batch"] for row in rows] == [1, 64]
    for row in rows:
        arrays, files = (each["ms"].median for each in row["times"].values())
        # How much longer files take is for the benchmark: a busy machine may
        # turn the order of two single calls around.
        assert arrays > 0.0 and files > 0.0
        assert row["found"].median == pytest.approx(files / arrays)


def test_without_onnx_the_row_says_what_to_install(script, monkeypatch):
    libraries = ("onnx_of_nobody", "json")
    monkeypatch.setattr(script.onnx_generator, "LIBRARIES", libraries)
    found = script._measure_onnx(SMALL, {})
    assert found.startswith("not installed: onnx_of_nobody (pip install")
    assert script._onnx_text(found) == [found]


def test_a_classifier_is_timed_alone_and_behind_a_purifier(script, purifier):
    network = keras.Sequential(
        [
            keras.Input(purifier.image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    classifier = models.Classifier.from_keras(network)
    rows = script._overhead_rows(SMALL, "linear", classifier, purifier)
    assert [(row["batch"], row["calls"]) for row in rows] == [(1, 1), (16, 1)]
    for row in rows:
        alone, behind = (each["ms"].median for each in row["times"].values())
        assert row["more_ms"].median == pytest.approx(behind - alone)
    (table,) = script._overhead_text(rows)
    assert "| linear | ape_gan_m, 8x8x1 | 16 | 1 |" in table


def test_the_classifiers_of_the_issue_fit_their_purifiers(script):
    assert list(script._CLASSIFIERS) == ["DenseNet40", "ResNet50"]
    assert script.CLASSIFIED_BATCHES == (1, 16)
    assert script.SERVED_BATCHES == {1: "latency", 64: "throughput"}


def test_a_start_that_breaks_is_no_success(script):
    absent = script.processes.Absent("exit code 1: ValueError: x", True)
    row = script._of_starts("ape_gan_m", "cold", [absent])
    assert script._failures({"cold_start": [row]}) == [row]
    (table,) = script._cold_start_text([row])
    assert "| ape_gan_m | exit code 1: ValueError: x |" in table


def test_without_the_messages_the_warm_row_says_what_to_install(script):
    row = script._of_starts("ape_gan_m", "warm", None)
    assert "pip install 'ape-gan-tf[serving]'" in row["absent"]
    assert script._failures({"cold_start": [row]}) == []


def test_an_unknown_row_lists_the_known_ones(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["serving.py", "--only=grpc"])
    with pytest.raises(SystemExit):
        script.main()
    known = (
        "'grpc' is not one of saved_model, encoded, onnx, cold_start, overhead"
    )
    assert known in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """With warm-up requests, where their messages are installed."""
    return saved_model.export(
        ape_gan_tf.load_pretrained("ape_gan_m"),
        tmp_path_factory.mktemp("exported") / "ape_gan_m",
        warmup_batch_sizes=(1, 2) if warmup.is_available() else (),
    )


def needs_messages():
    if not warmup.is_available():
        pytest.skip("tensorflow-serving-api is not installed")


def test_the_requests_of_the_warm_up_are_read_back(
    benchmarks, monkeypatch, exported
):
    needs_messages()
    # It takes the first folder, of a script, off the path.
    monkeypatch.syspath_prepend(benchmarks)
    cold_start = importlib.import_module("cold_start")
    found = cold_start.read_requests(exported / warmup.FILE)
    assert [
        (signature, name, len(tensor))
        for signature, tensors in found
        for name, tensor in tensors.items()
    ] == [
        ("purify", "images", 1),
        ("purify", "images", 2),
        ("purify_encoded", "image_bytes", 1),
        ("purify_encoded", "image_bytes", 1),
        ("purify_encoded", "image_bytes", 2),
        ("purify_encoded", "image_bytes", 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_a_fresh_process_says_what_its_first_answer_took(
    script, benchmarks, exported, tmp_path, kind
):
    if kind == "warm":
        needs_messages()
    made = script.processes.start(
        str(benchmarks / "cold_start.py"),
        {"saved_model": exported, "threads": 1},
        f"ape_gan_m/{kind}/0",
        tmp_path,
    )
    assert not isinstance(made, script.processes.Absent), made
    assert made["load"] > 0.0
    if kind == "warm":
        assert made["warm_up"] > 0.0
    else:  # The first answer pays for what TensorFlow puts off until then.
        assert made["warm_up"] == 0.0
        assert made["first"] > made["later"]
    row = script._of_starts("ape_gan_m", kind, [made])
    assert row["first_ms"].median == pytest.approx(1e3 * made["first"])


@pytest.mark.slow
def test_a_small_run_prints_a_table_and_writes_json(benchmarks, tmp_path):
    path = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            benchmarks / "serving.py",
            "--only=saved_model",
            "--rounds=1",
            "--seconds=0.01",
            "--threads=1",
            f"--json={path}",
        ],
        capture_output=True,
        text=True,
    )
    assert path.exists(), done.stderr
    report = json.loads(path.read_text())
    rows = report["saved_model"]
    assert [(row["generator"], row["batch"]) for row in rows] == [
        ("ape_gan_m", 1),
        ("ape_gan_m", 64),
        ("ape_gan_c", 1),
        ("ape_gan_c", 64),
    ]
    for row in rows:
        bare, served = (
            row["times"][name]["ms"]["median"]
            for name in ("tf.function", "SavedModel")
        )
        ratio = served / bare if row["batch"] == 1 else bare / served
        assert row["found"]["median"] == pytest.approx(ratio)
    assert done.returncode == (0 if all(x["reached"] for x in rows) else 1)
    assert "threads 1, rounds 1" in done.stdout
    assert "| ape_gan_c | 64 |" in done.stdout
