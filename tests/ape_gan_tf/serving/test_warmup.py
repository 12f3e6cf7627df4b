"""Warm-up requests, read back with TensorFlow Serving's own messages."""

import io
import subprocess
import sys

import pytest
import tensorflow as tf
from PIL import Image

import ape_gan_tf
from ape_gan_tf.serving import saved_model, warmup

pytest.importorskip(
    "tensorflow_serving", reason="tensorflow-serving-api is not installed"
)
from tensorflow_serving.apis import prediction_log_pb2  # noqa: E402


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return saved_model.export(
        ape_gan_tf.load_pretrained("ape_gan_m"),
        tmp_path_factory.mktemp("serving") / "cleaner",
        warmup_batch_sizes=[1, 3],
    )


@pytest.fixture(scope="module")
def requests(path):
    records = tf.data.TFRecordDataset(str(path / warmup.FILE))
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in records
    ]
    return [log.predict_log.request for log in logs]


def test_it_is_where_the_server_looks(path):
    extra = path / "assets.extra" / "tf_serving_warmup_requests"
    assert extra.is_file()


def test_there_are_some_for_each_signature_and_size(requests):
    found = [
        (
            request.model_spec.name,
            request.model_spec.signature_name,
            *(
                (name, tensor.tensor_shape.dim[0].size)
                for name, tensor in request.inputs.items()
            ),
        )
        for request in requests
    ]
    assert found == [
        ("cleaner", "purify", ("images", 1)),
        ("cleaner", "purify", ("images", 3)),
        ("cleaner", "purify_encoded", ("image_bytes", 1)),
        ("cleaner", "purify_encoded", ("image_bytes", 1)),
        ("cleaner", "purify_encoded", ("image_bytes", 3)),
        ("cleaner", "purify_encoded", ("image_bytes", 3)),
    ]


def test_files_are_of_both_kinds_and_larger_than_the_images(requests):
    files = [
        tf.make_ndarray(request.inputs["image_bytes"])[0]
        for request in requests
        if "image_bytes" in request.inputs
    ]
    opened = [Image.open(io.BytesIO(file)) for file in files]
    assert [image.format for image in opened] == ["PNG", "JPEG"] * 2
    assert {image.size for image in opened} == {(56, 56)}


def test_the_model_answers_them(path, requests):
    served = tf.saved_model.load(str(path))
    for request in requests:
        ((name, tensor),) = request.inputs.items()
        signature = served.signatures[request.model_spec.signature_name]
        given = tf.make_ndarray(tensor)
        answer = signature(**{name: tf.constant(given)})
        assert answer["valid"].numpy().tolist() == [True] * len(given)


def test_more_than_a_server_replays_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="at most 333 here, .* 1000 requests; got 334"
    ):
        saved_model.export(
            ape_gan_tf.load_pretrained("ape_gan_m"),
            tmp_path / "x",
            warmup_batch_sizes=range(1, 335),
        )
    assert list(tmp_path.glob("**/saved_model.pb")) == []


def test_without_the_extra_the_command_says_so(tmp_path):
    """In a Python where tensorflow_serving cannot be imported."""
    program = (
        "import sys; sys.modules['tensorflow_serving'] = None;"
        "from ape_gan_tf import command_line, export;"
        "sys.exit(command_line.run(export.define_flags, export.main,"
        " export.__doc__, argv=['export', *sys.argv[1:]]))"
    )
    words = [f"--output={tmp_path / 'x'}", "--purifier=ape_gan_m"]

    def run(*more):
        return subprocess.run(
            [sys.executable, "-c", program, *words, *more],
            capture_output=True,
            text=True,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "No warm-up requests are written" in done.stderr
    assert not (tmp_path / "x" / "1" / warmup.FILE).exists()
    done = run("--version=2", "--warmup_batch_sizes=1")
    assert done.returncode == 1
    assert "pip install 'ape-gan-tf[serving]'" in done.stderr
    assert not (tmp_path / "x" / "2").exists()
