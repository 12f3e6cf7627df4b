"""docs/serving.md and docs/serving/, done as they say.

The clients talk to TF Serving itself where it is installed. Where it is not,
that test is skipped, and what shows their messages to be right is a server of
this file's own: gRPC by tensorflow-serving-api's stubs, REST as TF Serving's
documentation has it, and behind both the exported SavedModel in a session, as
servers load it. It is no TF Serving: it neither merges requests nor replays
the warm-up.
"""

import base64
import concurrent.futures
import http.client
import http.server
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import ape_gan_tf
import data
from ape_gan_tf import command_line, export

pytest.importorskip(
    "tensorflow_serving", reason="tensorflow-serving-api is not installed"
)
import grpc  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_service_pb2_grpc,
)

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "serving.md"
FILES = ROOT / "docs" / "serving"
# A proxy that the environment names has no business with 127.0.0.1.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "no_proxy": "127.0.0.1",
}
STATUS = "/v1/models/purifier"
IMAGE = "tensorflow/serving"

pytestmark = pytest.mark.slow


class Server(NamedTuple):
    """Where a server listens."""

    url: str
    address: str

    def arguments(self, client):
        if client == "rest_client":
            return ["--url", self.url]
        return ["--address", self.address]


def blocks(language):
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(
        rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )


def line(start):
    """The document's one command that starts so."""
    lines = "".join(blocks("sh") + blocks("sh run")).splitlines()
    (found,) = (text for text in lines if text.startswith(start))
    return found


def bash(command, folder):
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the document's commands are typed, the export among them."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "docs").symlink_to(ROOT / "docs")
    bash(line('python -c "print(*range'), folder).check_returncode()
    make_images = line('python -c "import numpy as np; np.save')
    bash(make_images, folder).check_returncode()
    words = shlex.split(line("python -m ape_gan_tf.export"))
    home = Path.cwd()
    os.chdir(folder)
    try:
        assert (
            command_line.run(
                export.define_flags, export.main, export.__doc__, words[2:]
            )
            == 0
        )
    finally:
        os.chdir(home)
    return folder


@pytest.fixture(scope="module")
def path(folder):
    return folder / "serving" / "purifier" / "1"


@pytest.fixture(scope="module")
def purifier():
    return ape_gan_tf.load_pretrained("ape_gan_m")


@pytest.fixture(scope="module")
def classifier():
    return ape_gan_tf.load_pretrained("target_c")


@pytest.fixture(scope="module")
def images():
    """float32 `[5, 28, 28, 1]`, whole numbers of 255ths."""
    batch = next(iter(data.load("digits").batches("test", 5)))
    return np.round(batch["images"].numpy() * 255).astype(np.float32) / 255


@pytest.fixture(scope="module")
def image_files(images, tmp_path_factory):
    """The first two images as PNG files, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / name for name in ("0.png", "1.png", "broken.png")]
    for image, file in zip(images, paths[:2], strict=False):
        pixels = np.round(image[..., 0] * 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(file)
    paths[2].write_bytes(paths[0].read_bytes()[:100])
    return [str(path) for path in paths]


class Session:
    """The SavedModel in a session, as a server has it."""

    def __init__(self, path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        loaded = tf.compat.v1.saved_model.load(
            self._session, ["serve"], str(path)
        )
        self._signatures = loaded.signature_def

    def predict(self, name, batch):
        """Outputs by name; what Session.run would refuse is the model's."""
        signature = self._signatures[name]
        ((_, given),) = signature.inputs.items()
        outputs = dict(signature.outputs)
        answers = self._session._call_tf_sessionrun(
            None,
            {self._output(given): batch},
            [self._output(wanted) for wanted in outputs.values()],
            [],
            None,
        )
        return dict(zip(outputs, answers, strict=True))

    def _output(self, info):
        return self._session.graph.get_tensor_by_name(info.name)._as_tf_output()


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers gRPC requests."""

    def __init__(self, session):
        self._session = session

    def Predict(self, request, context):
        ((_, batch),) = request.inputs.items()
        try:
            answers = self._session.predict(
                request.model_spec.signature_name, tf.make_ndarray(batch)
            )
        except tf.errors.OpError as error:
            codes = {code.value[0]: code for code in grpc.StatusCode}
            context.abort(codes[error.error_code], error.message)
        response = predict_pb2.PredictResponse()
        for name, value in answers.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def rest_handler(session):
    """Answers REST requests in row format."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == STATUS
            self._send(200, {"model_version_status": [{"state": "AVAILABLE"}]})

        def do_POST(self):
            assert self.path == f"{STATUS}:predict"
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            try:
                answers = session.predict(
                    body["signature_name"], as_batch(body["instances"])
                )
            except tf.errors.InvalidArgumentError as error:
                self._send(400, {"error": error.message})
                return
            names, columns = zip(*answers.items(), strict=True)
            rows = zip(*map(as_json, columns), strict=True)
            predictions = [dict(zip(names, row, strict=True)) for row in rows]
            self._send(200, {"predictions": predictions})

        def _send(self, code, content):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *arguments):
            """Says nothing."""

    return Handler


def as_batch(instances):
    if isinstance(instances[0], dict):
        contents = [base64.b64decode(item["b64"]) for item in instances]
        return np.array(contents, object)
    return np.array(instances, np.float32)


def as_json(column):
    if column.dtype == object:
        return [text.decode() for text in column]
    return column.tolist()


@pytest.fixture(scope="module")
def own_server(path):
    session = Session(path)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        service = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(session), service
        )
        port = service.add_insecure_port("127.0.0.1:0")
        service.start()
        web = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), rest_handler(session)
        )
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield Server(f"http://127.0.0.1:{web.server_port}", f"127.0.0.1:{port}")
        web.shutdown()
        thread.join()
        web.server_close()
        service.stop(None).wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def model_server(folder, port, rest_port):
    """The document's command, on ports that are free."""
    command = line("tensorflow_model_server")
    for wanted, actual in ((8500, port), (8501, rest_port)):
        command = command.replace(f"port={wanted}", f"port={actual}")
    return ["bash", "-c", f"exec {command}"]


def container(folder, port, rest_port):
    """What compose.yaml asks for, in the words of `docker run`."""
    text = (FILES / "compose.yaml").read_text(encoding="utf-8")
    volumes = re.findall(r"- \./(\S+)", text)
    return [
        "docker",
        "run",
        "--rm",
        # Which passes signals on: the image's own first process is bash.
        "--init",
        f"--publish=127.0.0.1:{port}:8500",
        f"--publish=127.0.0.1:{rest_port}:8501",
        "--env=MODEL_NAME=purifier",
        *(f"--volume={folder}/serving/{volume}" for volume in volumes),
        IMAGE,
        *re.findall(r"- (--\S+)", text),
    ]


def has_image():
    """Whether there is a Docker engine that has TF Serving's image."""
    if not shutil.which("docker"):
        return False
    found = subprocess.run(
        ["docker", "image", "inspect", IMAGE], capture_output=True
    )
    return found.returncode == 0


@pytest.fixture(scope="module")
def real_server(folder):
    """TF Serving."""
    if shutil.which("tensorflow_model_server"):
        start = model_server
    elif has_image():
        start = container
    else:
        pytest.skip(
            "there is neither a tensorflow_model_server nor a Docker engine "
            f"that has the image {IMAGE}"
        )
    bash(line("cp docs"), folder).check_returncode()
    port, rest_port = free_port(), free_port()
    process = subprocess.Popen(start(folder, port, rest_port), cwd=folder)
    try:
        wait_until_available(process, rest_port)
        yield Server(f"http://127.0.0.1:{rest_port}", f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(60)


def wait_until_available(process, port):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", STATUS)
            if b'"AVAILABLE"' in connection.getresponse().read():
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.5)
    pytest.fail("TF Serving did not load the model")


@pytest.fixture(params=["own_server", "real_server"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a client in this process; returns its output, or why it left."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(client, *arguments):
        spec = importlib.util.spec_from_file_location(
            client, FILES / f"{client}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.main(arguments)
        except SystemExit as error:
            return str(error.code)
        return capsys.readouterr().out

    return run


def printed(text):
    """The outputs of each image that a client printed."""
    rows = [row.partition(": ") for row in text.splitlines()]
    assert [row[0] for row in rows] == [f"image {i}" for i in range(len(rows))]
    return [json.loads(row[2]) for row in rows]


CLIENTS = pytest.mark.parametrize("client", ["rest_client", "grpc_client"])


@CLIENTS
def test_a_client_sends_files_and_prints_and_saves_the_answers(
    client, server, image_files, images, purifier, classifier, tmp_path
):
    done = subprocess.run(
        [
            sys.executable,
            FILES / f"{client}.py",
            *image_files,
            "--signature=classify_encoded",
            f"--output={tmp_path}/purified.npy",
            "--timeout=60",
            *server.arguments(client),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = printed(done.stdout)
    purified = np.load(tmp_path / "purified.npy")
    assert purified.dtype == np.float32

    expected = purifier.predict(images[:2])
    np.testing.assert_allclose(purified[:2], expected, atol=1e-5)
    logits = classifier.predict(expected)
    np.testing.assert_allclose(
        [row["logits"] for row in rows[:2]], logits, atol=1e-3
    )
    change = np.abs(expected - images[:2]).max(axis=(1, 2, 3))
    np.testing.assert_allclose(
        [row["shift"][1] for row in rows[:2]], change, atol=1e-5
    )
    assert [row["class"] for row in rows[:2]] == logits.argmax(1).tolist()
    assert [row["label"] for row in rows] == [
        *(str(x) for x in logits.argmax(1)),
        "",
    ]
    assert [row["valid"] for row in rows] == [True, True, False]
    assert not purified[2].any()


@CLIENTS
def test_a_client_sends_arrays(
    client, server, call, images, purifier, tmp_path
):
    spoiled = images.copy()
    spoiled[1, 3, 3] = np.nan
    np.save(tmp_path / "images.npy", spoiled)
    text = call(
        client,
        f"{tmp_path}/images.npy",
        "--signature=purify",
        f"--output={tmp_path}/purified.npy",
        *server.arguments(client),
    )
    is_good = np.arange(5) != 1
    assert printed(text) == [{"valid": bool(good)} for good in is_good]
    purified = np.load(tmp_path / "purified.npy")
    np.testing.assert_allclose(
        purified[is_good], purifier.predict(images[is_good]), atol=1e-5
    )
    assert not purified[1].any()


@pytest.mark.parametrize(
    ("client", "code"),
    [("rest_client", "400 Bad Request"), ("grpc_client", "INVALID_ARGUMENT")],
)
def test_a_client_shows_why_a_shape_is_refused(
    client, code, server, call, tmp_path
):
    np.save(tmp_path / "wide.npy", np.zeros((2, 28, 29, 1), np.float32))
    message = call(
        client,
        f"{tmp_path}/wide.npy",
        "--signature=purify",
        *server.arguments(client),
    )
    assert message.startswith(f"{client}: {code}: ")
    assert "images must have shape [B, 28, 28, 1]" in message


def test_another_dtype_is_refused_as_the_document_says(server):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "purifier"
    request.model_spec.signature_name = "purify"
    request.inputs["images"].CopyFrom(
        tf.make_tensor_proto(np.zeros((2, 28, 28, 1)))
    )
    with (
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request, timeout=60)
    (shown,) = re.findall(
        r"`(Expects arg\[0\][^`]*)`", DOCUMENT.read_text(encoding="utf-8")
    )
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert shown in refused.value.details()


@CLIENTS
def test_a_client_says_that_no_server_is_there(client, call, image_files):
    nowhere = f"127.0.0.1:{free_port()}"
    message = call(
        client,
        image_files[0],
        *Server(f"http://{nowhere}", nowhere).arguments(client),
    )
    expected = {
        "rest_client": f"no answer from http://{nowhere}/v1/models",
        "grpc_client": "UNAVAILABLE: ",
    }
    assert message.startswith(f"{client}: {expected[client]}")
    assert "onnection refused" in message


@CLIENTS
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.npy", "No such file"),
        ("empty.npy", "empty.npy has no images"),
        ("one.npy", "one.npy must be an .npy file of [N, H, W, C]"),
        ("several.npz", "several.npz must be an .npy file of [N, H, W, C]"),
    ],
)
def test_a_client_says_what_is_wrong_with_a_file(
    client, name, said, call, tmp_path
):
    np.save(tmp_path / "empty.npy", np.zeros((0, 28, 28, 1), np.float32))
    np.save(tmp_path / "one.npy", np.float32(0.5))
    np.savez(tmp_path / "several.npz", images=np.zeros((1, 28, 28, 1)))
    message = call(client, f"{tmp_path}/{name}", "--signature=purify")
    assert message.startswith(f"{client}: ") and said in message


def test_the_grpc_client_names_another_dtype(call, tmp_path):
    np.save(tmp_path / "double.npy", np.zeros((2, 28, 28, 1)))
    message = call(
        "grpc_client", f"{tmp_path}/double.npy", "--signature=purify"
    )
    assert "images must be float32, got float64" in message


def test_the_rest_client_names_an_address_that_is_none(call, capsys):
    assert call("rest_client", "x.png", "--url=127.0.0.1:8501") == "2"
    message = "--url: must begin with http:// or https://"
    assert message in capsys.readouterr().err


def test_the_curl_line_is_answered(own_server, folder, image_files):
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    shutil.copy(image_files[0], folder / "digit.png")
    command = line("printf").replace("http://127.0.0.1:8501", own_server.url)
    done = bash(command, folder)
    (answer,) = json.loads(done.stdout)["predictions"]
    assert answer["valid"] and len(answer["logits"]) == 10


def test_the_health_check_looks_for_the_model(own_server):
    """By bash, which alone has /dev/tcp."""
    text = (FILES / "compose.yaml").read_text(encoding="utf-8")
    (check,) = re.findall(r"^ *test: (.*)$", text, re.MULTILINE)
    first, *command = json.loads(check)
    assert first == "CMD"
    for port, code in (
        (own_server.url.rpartition(":")[2], 0),
        (str(free_port()), 1),
    ):
        there = [word.replace("8501", port) for word in command]
        done = subprocess.run(there, capture_output=True, timeout=30)
        assert done.returncode == code


def test_compose_names_what_the_commands_make(folder):
    text = (FILES / "compose.yaml").read_text(encoding="utf-8")
    assert (folder / "serving").is_dir()
    copied = {Path(x).name for x in shlex.split(line("cp docs"))[1:-1]}
    assert copied == {"compose.yaml", "batching_parameters.txt"}
    sources = re.findall(r"- \./([^:\s]+):(\S+):ro", text)
    made = {"purifier", "batching_parameters.txt"}
    assert dict(sources) == {name: f"/models/{name}" for name in made}
    # Where the image looks for a model.
    assert "MODEL_NAME: purifier" in text
    assert "--batching_parameters_file=/models/batching_parameters.txt" in text
    assert "GET /v1/models/purifier " in text
    assert f"image: {IMAGE}:" in text


def test_compose_is_yaml():
    yaml = pytest.importorskip("yaml", reason="there is no YAML library")
    text = (FILES / "compose.yaml").read_text(encoding="utf-8")
    service = yaml.safe_load(text)["services"]["purifier"]
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]


def test_batches_have_the_sizes_that_are_warmed_up():
    text = (FILES / "batching_parameters.txt").read_text(encoding="utf-8")
    allowed = re.findall(r"^allowed_batch_sizes: (\d+)$", text, re.MULTILINE)
    (largest,) = re.findall(r"max_batch_size \{ value: (\d+) \}", text)
    # TF Serving's own condition.
    assert allowed[-1] == largest
    assert sorted(allowed, key=int) == allowed
    sizes = f"--warmup_batch_sizes={','.join(allowed)}"
    assert sizes in line("python -m ape_gan_tf.export")
    assert sizes in text


def test_saved_model_cli_purifies_a_file(folder, purifier):
    done = bash(line("saved_model_cli run"), folder)
    assert done.returncode == 0, done.stderr
    purified = np.load(folder / "answers" / "purified.npy")
    np.testing.assert_allclose(
        purified, purifier.predict(np.load(folder / "images.npy")), atol=1e-6
    )
    assert np.load(folder / "answers" / "valid.npy").tolist() == [True, True]


def test_the_python_block_loads_it_three_times(folder, monkeypatch, purifier):
    monkeypatch.chdir(folder)
    (block,) = blocks("python")
    names = {}
    exec(compile(block, str(DOCUMENT), "exec"), names)
    expected = purifier.predict(np.load("images.npy"))
    for found in (
        names["answer"]["purified"],
        names["purified_by_keras"],
        names["purified_by_us"],
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture(scope="module")
def purify_c(folder):
    """Builds the C program; returns a function that runs it."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    if not sys.platform.startswith("linux"):
        pytest.skip("the names of the libraries are those of Linux")
    done = bash(f"{line('TF=')}\n{line('cc ')}", folder)
    assert done.returncode == 0, done.stderr
    command, model, *names = shlex.split(line("./purify"))[:4]

    def run(images, shape):
        return subprocess.run(
            [command, model, *names, *map(str, shape)],
            input=images.tobytes(),
            cwd=folder,
            capture_output=True,
            timeout=60,
        )

    return run


def test_the_names_for_c_are_the_signatures(path):
    model = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    signature = model.meta_graphs[0].signature_def["purify"]
    wanted = [
        signature.inputs["images"].name,
        signature.outputs["purified"].name,
    ]
    assert [f"{name}:0" for name in shlex.split(line("./purify"))[2:4]] == (
        wanted
    )
    assert signature.outputs["valid"].name == wanted[1].replace(":0", ":1")


def test_the_c_program_purifies_and_marks(purify_c, images, purifier):
    spoiled = images.copy()
    spoiled[2, 0, 0] = np.nan
    done = purify_c(spoiled, (28, 28, 1))
    assert done.returncode == 0, done.stderr
    purified = np.frombuffer(done.stdout, np.float32).reshape(images.shape)
    is_good = np.arange(5) != 2
    np.testing.assert_allclose(
        purified[is_good], purifier.predict(images[is_good]), atol=1e-6
    )
    assert not purified[2].any()
    assert re.findall(r"^image (\d): (.*)$", done.stderr.decode(), re.M) == [
        (str(i), "valid" if good else "not valid")
        for i, good in enumerate(is_good)
    ]


def test_the_c_program_purifies_nothing(purify_c, images):
    done = purify_c(images[:0], (28, 28, 1))
    assert done.returncode == 0 and done.stdout == b""


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((28, 14, 2), "images must have shape [B, 28, 28, 1]"),
        ((28, 30, 1), "not a whole number of images"),
    ],
)
def test_the_c_program_refuses_another_shape(purify_c, images, shape, message):
    done = purify_c(images[:2], shape)
    assert done.returncode == 1 and done.stdout == b""
    lines = done.stderr.decode().splitlines()
    (error,) = (text for text in lines if text.startswith("purify: "))
    assert message in error
