"""`keras-bert pretrain` on a corpus, as users run it: killed, gone on with, changed, and from a checkpoint."""

import contextlib
import json
import re
import signal
import socket
import time

import numpy as np
import pytest
from cli_runs import make_data, make_launcher, run, start

import keras_bert as kb

pytestmark = pytest.mark.slow

RUN = ["pretrain", "--corpus", "corpus", "--preset", "config.json", "--batch-size", 4, "--seed", 3, "--deterministic"]
HUNDRED = ["--steps", 100]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus of little text, and the config of a model that is quick to train."""
    folder = make_data(tmp_path_factory.mktemp("pretrain"))
    assert run("vocab", "--text", folder / "text.txt", "--vocab-size", 200, "--out", folder / "vocab").status == 0
    vocab = folder / "vocab" / "vocab.txt"
    build = ["corpus", "build", "--input", folder / "text.txt", "--vocab", vocab, "--max-length", 16, "--workers", 0]
    assert run(*build, "--held-out", 0.2, "--out", folder / "corpus").status == 0
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    size = len(vocab.read_text(encoding="utf-8").splitlines())
    config = {"vocab_size": size, "max_position_embeddings": 16, **sizes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """A run in one go, in a process of its own, as deterministic ops are a switch for a whole process."""
    with start(make_launcher(folder), *RUN, *HUNDRED, "--out", "whole", cwd=folder) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return folder / "whole", out


def weights(folder):
    return kb.load_checkpoint(folder, "pretraining")[0].get_weights()


def test_killed_and_gone_on_with_it_ends_at_the_same_bits(folder, whole):
    launcher, state = make_launcher(folder), folder / "killed" / "progress" / "state.json"
    with start(launcher, *RUN, *HUNDRED, "--out", "killed", cwd=folder) as process:
        until = time.monotonic() + 240
        while not state.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was killed before its end"
    assert 0 < json.loads(state.read_text())["log"]["step"] < 100
    with start(launcher, *RUN, *HUNDRED, "--out", "killed", cwd=folder) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == whole[1]
    for one, other in zip(weights(whole[0]), weights(folder / "killed"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_folder_is_a_model(folder, whole):
    kept = json.loads((whole[0] / "checkpoints" / "checkpoints.json").read_text())
    assert kept["best"] == 100
    model, _ = kb.load_checkpoint(whole[0] / "checkpoints" / "step-100" / "keras", "pretraining")
    for one, other in zip(weights(whole[0]), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (whole[0] / "progress").exists()


def test_a_change_is_shown(folder, monkeypatch):
    monkeypatch.chdir(folder)
    command = [*RUN, "--steps", 100000, "--out", "changed"]
    launcher = make_launcher(folder)
    with start(launcher, *command, cwd=folder) as process:
        state, until = folder / "changed" / "progress" / "state.json", time.monotonic() + 240
        while not state.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert state.exists(), "SIGTERM saves first"
    refused = run(*command, "--learning-rate", 0.005)
    assert refused.status == 1
    assert re.search(r"settings.learning_rate: 0.001 before, 0.005 now", refused.err)
    assert state.exists(), "nothing is lost"


def test_a_second_phase_from_a_checkpoint(folder, whole, monkeypatch):
    monkeypatch.chdir(folder)
    outcome = run(
        *(
            "pretrain",
            "--corpus",
            "corpus",
            "--checkpoint",
            "whole",
            "--steps",
            2,
            "--batch-size",
            4,
            "--out",
            "second",
        ),
        *("--learning-rate", 1e-6, "--optimizer", "lamb", "--checkpoint-format", "hf", "google"),
    )
    assert outcome.status == 0, outcome.err
    for one, other in zip(weights(whole[0]), weights(folder / "second"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    for format in ("hf", "google"):
        kb.load_checkpoint(folder / "second" / "checkpoints" / "step-2" / format, "pretraining")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--corpus nowhere", "nowhere: expected a corpus with its manifest.json"),
        ("", "Expected --corpus, or --text with --vocab. Received: both or neither"),
        ("--text text.txt", "--vocab belongs to --text"),
        ("--corpus corpus --preset tiny --checkpoint whole", "Expected --preset for a new model, or --checkpoint"),
        ("--corpus corpus --strategy parameter_server", "model.fit of Keras 3 does not support parameter servers"),
        ("--corpus corpus --strategy multi_worker", "TF_CONFIG to hold the workers' addresses"),
    ],
)
def test_refused(folder, command, message, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    outcome = run("pretrain", *command.split(), "--out", "refused")
    assert outcome.status in (1, 2)
    assert message in outcome.last_error()
    assert not (folder / "refused").exists()


def test_a_damaged_shard_is_named(folder, tmp_path, monkeypatch):
    shard = next((folder / "corpus").glob("train-*.tfrecord"))
    before = shard.read_bytes()
    try:
        shard.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        outcome = run("pretrain", "--corpus", folder / "corpus", "--preset", "tiny", "--out", tmp_path / "new")
    finally:
        shard.write_bytes(before)
    assert outcome.status == 1
    assert f"{shard}: expected the SHA-256" in outcome.last_error()


def test_two_workers_write_what_one_process_writes(folder, monkeypatch):
    """Without dropout, of which every worker draws its own."""
    monkeypatch.chdir(folder)
    config = json.loads((folder / "config.json").read_text())
    quiet = {**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "quiet.json").write_text(json.dumps(quiet), encoding="utf-8")
    command = ["pretrain", "--corpus", "corpus", "--preset", "quiet.json", "--batch-size", 4, "--steps", 6]
    command += ["--evaluate-every", 3]
    alone = run(*command, "--out", "alone")
    assert alone.status == 0, alone.err
    with contextlib.ExitStack() as ports:
        sockets = [ports.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("localhost", 0))
        cluster = {"worker": [f"localhost:{one.getsockname()[1]}" for one in sockets]}
    launcher, workers = make_launcher(folder), []
    for index in range(2):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        workers.append(start(launcher, *command, "--strategy", "multi_worker", "--out", "together", cwd=folder))
    try:
        said = [worker.communicate(timeout=400) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert json.loads(said[0][0]).keys() == json.loads(alone.out).keys(), "the chief prints the figures"
    assert said[1][0] == ""
    for one, other in zip(weights(folder / "alone"), weights(folder / "together"), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    kept = json.loads((folder / "together" / "checkpoints" / "checkpoints.json").read_text())
    assert [entry["step"] for entry in kept["checkpoints"]] == [3, 6]
