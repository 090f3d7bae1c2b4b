"""The Hugging Face hub: a cache laid out by hand, and a server that plays the hub; no test leaves this machine."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import urllib.parse

import pytest

from keras_bert.checkpoints import hub

ROOT = pathlib.Path(__file__).parents[1]
COMMIT, OLDER = "a" * 40, "b" * 40
SMALL = ["config.json", "tokenizer_config.json", "vocab.txt"]

# huggingface_hub reads the environment when it is imported, so each environment is a process of its own. hub.py stands
# alone, and so these need neither Keras nor TensorFlow.
CALLS = """
import importlib.util, json, logging, pathlib, sys, time
spec = importlib.util.spec_from_file_location("hub", sys.argv[1])
hub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub)
logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
results = []
for call in json.load(sys.stdin):
    start = time.perf_counter()
    try:
        folder = hub.fetch(*call)
        files = [path for path in folder.rglob("*") if path.is_file()]
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        result = {"commit": folder.name, "files": sizes}
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error)}
    results.append({**result, "seconds": time.perf_counter() - start})
print(json.dumps(results))
"""


def environment(cache: pathlib.Path, **values) -> dict:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
    }
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    return {**kept, "HF_HOME": str(cache / "home"), "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1", **values}


def fetch(calls: list[list], cache: pathlib.Path, **values) -> list[dict]:
    """What `fetch` does with each list of arguments, one after another in one process."""
    result = subprocess.run(
        [sys.executable, "-c", CALLS, hub.__file__],
        input=json.dumps(calls),
        env=environment(cache, **values),
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [{**found, "log": result.stderr} for found in json.loads(result.stdout.splitlines()[-1])]


def fill_cache(cache: pathlib.Path, hub_id: str, files: dict[str, bytes], commit=COMMIT, refs=("main",)) -> None:
    """Lays a snapshot out as the library does: links to blobs that are named by their hash."""
    root = cache / f"models--{hub_id.replace('/', '--')}"
    for name in refs:
        (root / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "refs" / name).write_text(commit)
    for name, content in files.items():
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = root / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


def contents(*names: str) -> dict[str, bytes]:
    return {name: name.encode() * 7 for name in names}


class FakeHub(http.server.ThreadingHTTPServer):
    """The part of the hub's API that downloads use.

    `repositories`: by id, {"files": {name: bytes}, "revisions": {name: commit}}, and {"token": of who may see it,
    "gated": bool} where not everybody may.
    `seen`: (method, path, token) of every request.
    """

    daemon_threads = True

    def __init__(self, repositories: dict):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.seen, self.broken = repositories, [], False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server.seen.append((self.command, path, token))
        if self.server.broken:
            return self.answer(500, b"out of order")
        hub_id = next((name for name in self.server.repositories if f"/{name}/" in f"{path}/"), None)
        found = self.server.repositories.get(hub_id, {})
        if hub_id is None or found.get("token", token) != token:
            code = "GatedRepo" if found.get("gated") else "RepoNotFound"
            return self.answer(401, b"{}", {"X-Error-Code": code, "X-Error-Message": "no access"})
        rest = path.partition(f"/{hub_id}")[2].strip("/").split("/")
        revision = urllib.parse.unquote(rest[1]) if len(rest) > 1 else "main"
        commit = revision if revision in found["revisions"].values() else found["revisions"].get(revision)
        if commit is None:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = found["files"]
        if "resolve" in rest[:1]:
            content = files[urllib.parse.unquote("/".join(rest[2:]))]
            etag = hashlib.sha256(content).hexdigest()
            return self.answer(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        if "tree" in rest[:1]:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self.answer(200, json.dumps(entries).encode())
        siblings = [{"rfilename": name} for name in files]
        values = {"id": hub_id, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
        return self.answer(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, content: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def serve(repositories: dict):
    server = FakeHub(repositories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(server: FakeHub, hub_id: str) -> list[str]:
    """The files of a repository that were asked for."""
    found = {path.partition(f"/{hub_id}/resolve/")[2] for _, path, _ in server.seen}
    return sorted({path.partition("/")[2] for path in found if path})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("google-bert/bert-base-uncased", True),
        ("bert-base-uncased", True),
        ("sentence-transformers/all-MiniLM-L6-v2", True),
        ("output/model.keras", True),  # an error names both
        ("./model", False),
        ("../model", False),
        ("/models/bert", False),
        ("~/bert", False),
        ("a/b/c", False),
        ("a..b", False),
        ("C:\\models\\bert", False),
        ("模型", False),
        ("", False),
        (pathlib.Path("bert-base-uncased"), False),
        (str(ROOT / "tests"), False),
    ],
)
def test_what_can_be_a_hub_id(text, expected):
    assert hub.is_hub_id(text) is expected


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / "user" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not hub.is_hub_id("user/model")
    assert hub.is_hub_id("user/models")


TRANSFORMERS = ["config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
COPIES = ["tf_model.h5", "flax_model.msgpack", "rust_model.ot", "onnx/model.onnx", "openvino/openvino_model.xml"]
OTHERS = [".gitattributes", "README.md", "LICENSE", "training_args.bin", "optimizer.pt", "data_config.json", "model.py"]
OTHERS += [
    "onnx/config.json",
    "train_script.py",
    "runs/events.out",
    "checkpoint-500/model.safetensors",
    "rng_state.pth",
]


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (
            [*TRANSFORMERS, "model.safetensors"],
            ["pytorch_model.bin", "model.fp16.safetensors", "bert_model.ckpt.index"],
        ),
        ([*TRANSFORMERS, "pytorch_model.bin"], ["adapter_model.bin", "pytorch_model.bin.old"]),
        (
            [
                *TRANSFORMERS,
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
        ),
        (
            [*TRANSFORMERS, "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
            [],
        ),
        (
            [
                *TRANSFORMERS,
                "modules.json",
                "config_sentence_transformers.json",
                "sentence_bert_config.json",
                "model.safetensors",
                "1_Pooling/config.json",
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
                "3_Normalize/config.json",
            ],
            ["pytorch_model.bin", "2_Dense/pytorch_model.bin", "2_Dense/README.md"],
        ),
        (
            [
                f"0_Transformer/{name}"
                for name in [*TRANSFORMERS, "sentence_distilbert_config.json", "model.safetensors"]
            ]
            + ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/pytorch_model.bin"],
            ["0_Transformer/pytorch_model.bin", "0_Transformer/onnx/model.onnx"],
        ),
        (
            ["bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "vocab.txt"],
            ["bert_model.ckpt.meta", "checkpoint"],
        ),
        (
            [
                "assets/tokenizer/vocabulary.txt",
                "config.json",
                "metadata.json",
                "model.weights.h5",
                "preprocessor.json",
                "task.json",
                "task.weights.h5",
                "tokenizer.json",
            ],
            ["assets/figure.png"],
        ),
        (["keras_bert.json", "model.keras", "vocab.txt"], []),
        (["config.json"], []),
    ],
)
def test_what_is_fetched(wanted, others):
    assert hub.choose_files([*wanted, *others, *COPIES, *OTHERS]) == sorted(wanted)


def test_names_that_lead_out_of_the_folder_are_not_asked_for():
    names = [
        "../config.json",
        "/config.json",
        "0_x/../../config.json",
        "assets/tokenizer/../../../x",
        "..\\config.json",
    ]
    assert hub.choose_files(names) == []


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Results of calls with a cache and no network, by name."""
    cache = tmp_path_factory.mktemp("cached")
    whole = contents(*SMALL, "model.safetensors")
    fill_cache(cache, "user/model", whole, refs=("main", "v1.0", "refs/pr/1"))
    fill_cache(cache, "user/model", contents(*SMALL, "pytorch_model.bin"), OLDER, refs=("old",))
    fill_cache(cache, "bert-base-uncased", whole)
    fill_cache(cache, "user/partial", contents(*SMALL))
    fill_cache(cache, "user/broken", contents(*SMALL))
    (cache / "models--user--broken" / "snapshots" / COMMIT / "model.safetensors").symlink_to("../../blobs/gone")
    calls = {
        "whole": ["user/model"],
        "no user": ["bert-base-uncased"],
        "tag": ["user/model", "v1.0"],
        "pull request": ["user/model", "refs/pr/1"],
        "branch": ["user/model", "old"],
        "commit": ["user/model", OLDER],
        "other commit": ["user/model", "c" * 40],
        "other revision": ["user/model", "dev"],
        "partial": ["user/partial"],
        "broken": ["user/broken"],
        "absent": ["user/absent"],
        "no id": ["user--model"],
    }
    return dict(zip(calls, fetch(list(calls.values()), cache, HF_HUB_OFFLINE="1"), strict=True))


@pytest.mark.parametrize(
    ("name", "commit", "weights"),
    [
        ("whole", COMMIT, "model.safetensors"),
        ("no user", COMMIT, "model.safetensors"),
        ("tag", COMMIT, "model.safetensors"),
        ("pull request", COMMIT, "model.safetensors"),
        ("branch", OLDER, "pytorch_model.bin"),
        ("commit", OLDER, "pytorch_model.bin"),
    ],
)
def test_offline_from_the_cache(cached, name, commit, weights):
    found = cached[name]
    assert found["commit"] == commit
    assert found["files"] == {file: len(content) for file, content in contents(*SMALL, weights).items()}
    assert "taken from the cache" not in found["log"]


@pytest.mark.parametrize("name", ["other commit", "other revision", "partial", "broken", "absent"])
def test_offline_and_not_in_the_cache(cached, name):
    found = cached[name]
    assert found["error"] == "ConnectionError"
    assert "no such folder" in found["message"]
    assert "HF_HUB_OFFLINE" in found["message"]
    assert "no whole copy in its cache" in found["message"]


def test_a_name_that_is_no_id(cached):
    assert cached["no id"]["error"] == "FileNotFoundError"
    assert "no such folder" in cached["no id"]["message"]
    assert "no ids of this form" in cached["no id"]["message"]


@pytest.fixture(scope="module")
def online(tmp_path_factory):
    """(results of calls to a server by name, the server, the cache)"""
    cache = tmp_path_factory.mktemp("online")
    revisions = {"main": COMMIT, "v1.0": OLDER, "feature/x": OLDER}
    sentence = ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    repositories = {
        "user/model": contents(*SMALL, "model.safetensors", "pytorch_model.bin", *COPIES, *OTHERS),
        "bert-base-uncased": contents(*SMALL, "pytorch_model.bin"),
        "user/sentence": contents(*SMALL, *sentence, "model.safetensors", "onnx/model.onnx"),
        "user/private": contents(*SMALL, "model.safetensors"),
        "user/gated": contents(*SMALL, "model.safetensors"),
        "user/flax": contents("config.json", "flax_model.msgpack"),
        "user/cached": contents(*SMALL, "model.safetensors"),
    }
    repositories = {name: {"files": files, "revisions": revisions} for name, files in repositories.items()}
    for name in ("user/private", "user/gated", "user/cached"):
        repositories[name]["token"] = "hf_secret"
    repositories["user/gated"]["gated"] = True
    fill_cache(cache, "user/cached", contents(*SMALL, "model.safetensors"))
    calls = {
        "whole": ["user/model"],
        "again": ["user/model"],
        "tag": ["user/model", "v1.0"],
        "slash": ["user/sentence", "feature/x"],
        "commit": ["bert-base-uncased", OLDER],
        "no revision": ["user/model", "v9"],
        "no token": ["user/private", None, False],
        "token": ["user/private", None, "hf_secret"],
        "wrong token": ["user/gated", None, "hf_wrong"],
        "gated": ["user/gated", None, False],
        "absent": ["user/absent"],
        "flax": ["user/flax"],
        "cached": ["user/cached"],
        "no saved token": ["user/model", None, True],
    }
    with serve(repositories) as server:
        results = fetch(list(calls.values()), cache, HF_ENDPOINT=server.url)
        yield dict(zip(calls, results, strict=True)), server, cache


@pytest.mark.parametrize(
    ("name", "hub_id", "commit", "files"),
    [
        ("whole", "user/model", COMMIT, [*SMALL, "model.safetensors"]),
        ("again", "user/model", COMMIT, [*SMALL, "model.safetensors"]),
        ("tag", "user/model", OLDER, [*SMALL, "model.safetensors"]),
        (
            "slash",
            "user/sentence",
            OLDER,
            [
                *SMALL,
                "model.safetensors",
                "modules.json",
                "1_Pooling/config.json",
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
            ],
        ),
        ("commit", "bert-base-uncased", OLDER, [*SMALL, "pytorch_model.bin"]),
        ("token", "user/private", COMMIT, [*SMALL, "model.safetensors"]),
    ],
)
def test_downloads(online, name, hub_id, commit, files):
    results, server, cache = online
    assert results[name].get("commit") == commit, results[name]
    assert results[name]["files"] == {file: len(content) for file, content in contents(*files).items()}
    assert asked(server, hub_id) == sorted(files)
    snapshot = cache / f"models--{hub_id.replace('/', '--')}" / "snapshots" / commit
    for file, content in contents(*files).items():
        assert (snapshot / file).read_bytes() == content


def test_the_token_is_sent_to_its_repository_only(online):
    _, server, _ = online
    tokens = {path.split("/resolve/")[0].removeprefix("/api/models"): set() for _, path, _ in server.seen}
    for _, path, token in server.seen:
        tokens[path.split("/resolve/")[0].removeprefix("/api/models")].add(token)
    assert "hf_secret" in tokens["/user/private"]
    assert tokens["/user/model"] == {""}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("no revision", "has no revision 'v9' of it"),
        ("no token", "shows no such repository.*private.*HF_TOKEN"),
        ("gated", "accepted its conditions.*token="),
        ("wrong token", "accepted its conditions"),
        ("absent", "shows no such repository.*Check the spelling"),
        ("no saved token", "token=True, and none is saved"),
    ],
)
def test_what_the_hub_does_not_give(online, name, pattern):
    found = online[0][name]
    assert found["error"] == "FileNotFoundError", found
    assert re.search(f"no such folder in .*, and the hub .*{pattern}", found["message"])


def test_a_repository_without_weights_to_read(online):
    results, server, _ = online
    assert results["flax"]["error"] == "FileNotFoundError"
    assert "a repository without weights in a format" in results["flax"]["message"]
    assert asked(server, "user/flax") == []


def test_a_cached_copy_serves_where_the_hub_gives_none(online):
    found = online[0]["cached"]
    assert found["commit"] == COMMIT
    assert "keras_bert: user/cached: taken from the cache, since the hub shows no such repository" in found["log"]


def test_a_token_of_the_environment_and_a_server_out_of_order(tmp_path):
    files = contents(*SMALL, "model.safetensors")
    revisions = {"main": COMMIT}
    repositories = {
        name: {"files": files, "revisions": revisions, "token": "hf_of_environment"} for name in ("user/a", "user/b")
    }
    with serve(repositories) as server:
        values = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_of_environment"}
        (found,) = fetch([["user/a"]], tmp_path, **values)
        assert found["commit"] == COMMIT
        server.broken = True
        cached, absent = fetch([["user/a"], ["user/b"]], tmp_path, **values)
    assert cached["commit"] == COMMIT
    assert "taken from the cache" in cached["log"]
    assert absent["error"] == "ConnectionError"
    assert "cannot be reached" in absent["message"]
    assert "500" in absent["message"]


def test_a_cache_that_cannot_be_written(tmp_path):
    """An error of the disk is no error of the hub."""
    (tmp_path / "file").write_text("")
    repositories = {"user/a": {"files": contents(*SMALL, "model.safetensors"), "revisions": {"main": COMMIT}}}
    with serve(repositories) as server:
        (found,) = fetch([["user/a"]], tmp_path, HF_ENDPOINT=server.url, HF_HUB_CACHE=str(tmp_path / "file" / "cache"))
    assert found["error"] == "NotADirectoryError"
    assert "file/cache" in found["message"]


def test_no_network(tmp_path):
    """A server that refuses connections: what is cached loads, and the rest is an error at once."""
    fill_cache(tmp_path, "user/model", contents(*SMALL, "model.safetensors"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        calls = [["user/model"], ["outputs/my_model"]]
        cached, absent = fetch(calls, tmp_path, HF_ENDPOINT=endpoint)
    assert cached["commit"] == COMMIT
    assert "user/model: taken from the cache, since the hub cannot be reached" in cached["log"]
    assert absent["error"] == "ConnectionError"
    assert "no such folder" in absent["message"]
    assert "cannot be reached (Connect" in absent["message"]
    # The library's own retries wait for seconds, and longer each time; this is no measurement.
    assert absent["seconds"] < 5
    assert list(tmp_path.glob("models--outputs*")) == []


LOAD = """
import json, sys
import numpy as np
import keras_bert as kb
folder = kb.load_model_folder("user/tiny", revision="v1")
inputs = kb.Preprocessor(folder.tokenizer, max_length=folder.max_length)(["w1 w2", "w3"])
try:
    kb.load_checkpoint("user/tiny", revision="v2")
    message = None
except ConnectionError as error:
    message = str(error)
print(json.dumps([folder.task, np.asarray(folder.model(inputs)).tolist(), message]))
"""


def test_load_checkpoint_from_the_cache(tmp_path):
    import numpy as np
    from hugging_face_cases import load_golden, write_case

    import keras_bert as kb

    written = write_case(load_golden()["classifier"], tmp_path / "written")
    files = {path.name: path.read_bytes() for path in written.iterdir()}
    cache = tmp_path / "cache"
    fill_cache(cache, "user/tiny", files, refs=("v1",))
    result = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**environment(cache, HF_HUB_OFFLINE="1"), "PYTHONPATH": str(ROOT)},
        cwd=cache,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    task, logits, message = json.loads(result.stdout.splitlines()[-1])
    folder = kb.load_model_folder(written)
    inputs = kb.Preprocessor(folder.tokenizer, max_length=folder.max_length)(["w1 w2", "w3"])
    assert task == "classifier"
    np.testing.assert_allclose(logits, np.asarray(folder.model(inputs)), rtol=0, atol=1e-6)
    assert "no such folder" in message


def test_revision_and_token_belong_to_the_hub(tmp_path):
    import keras_bert as kb

    for options in ({"revision": "main"}, {"token": "hf_x"}):
        with pytest.raises(ValueError, match="revision and token belong to a hub id"):
            kb.load_checkpoint(tmp_path, **options)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        kb.load_checkpoint("./no/such/folder")
