"""Two processes on this machine train one model; TF_CONFIG is what tells them of each other."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_bert.training import distribution
from keras_bert.training.distribution import WorkerLostError, check_tf_config, make_strategy

TESTS = Path(__file__).parent
LIMIT_SECONDS = 240  # for one run, of which a lost worker takes a quarter of a minute


def run(folder, name, fates):
    """Runs a worker for each fate, or one process alone; returns what each said: (exit status, stdout, results)."""
    files = [folder / f"{name}-{index}.json" for index in range(len(fates))]
    addresses = free_addresses(len(fates))
    processes = []
    try:
        for index, (file, fate) in enumerate(zip(files, fates, strict=True)):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
            environment.pop("TF_CONFIG", None)
            if len(fates) > 1:
                environment["TF_CONFIG"] = tf_config(addresses, index)
            arguments = ["multi_worker" if len(fates) > 1 else "default", folder / "checkpoints", file, fate]
            if len(fates) == 1:
                arguments[1] = folder / "alone"
            with (folder / f"{name}-{index}.log").open("w") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, TESTS / "multi_worker_runs.py", *arguments],
                        env=environment,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                )
        said = [process.communicate(timeout=LIMIT_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    results = [json.loads(file.read_text()) if file.exists() else None for file in files]
    logs = "\n".join((folder / f"{name}-{index}.log").read_text()[-3000:] for index in range(len(fates)))
    return [(process.returncode, *rest) for process, *rest in zip(processes, said, results, strict=True)], logs


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def tf_config(addresses, index):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The results of one process at the same global batch."""
    [(status, _, results)], log = run(tmp_path_factory.mktemp("alone"), "alone", [""])
    assert status == 0, log
    return results


def assert_same(results, expected):
    assert [row["step"] for row in results["rows"]] == [3, 6, 9, 12]
    ours, theirs = ([*of["rows"], of["evaluation"]] for of in (results, expected))
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            np.testing.assert_allclose(row[key], other[key], rtol=1e-5, atol=1e-6, err_msg=f"{key} of {row}")
    assert results["weights"].keys() == expected["weights"].keys()
    for path, weight in results["weights"].items():
        np.testing.assert_allclose(weight, expected["weights"][path], atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_two_workers_train_as_one_process(tmp_path, alone):
    workers, log = run(tmp_path, "two", ["", ""])
    assert [status for status, *_ in workers] == [0, 0], log
    for _, _, results in workers:
        assert_same(results, alone)
    assert alone["rows"][-1]["loss"] < alone["rows"][0]["loss"], "it trained"
    names = {path.name.split(".")[0] for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"state", "step_12"}, "the chief alone wrote"


@pytest.mark.slow
def test_whoever_dies_all_start_again_and_go_on(tmp_path, alone):
    workers, log = run(tmp_path, "second-dies", ["", "SIGKILL@6"])
    assert [status for status, *_ in workers] == [3, -signal.SIGKILL], log
    assert "died" in workers[0][1]
    assert "Start all workers again. The run goes on from step 4." in workers[0][1]

    workers, log = run(tmp_path, "chief-dies", ["SIGKILL@7", ""])
    assert [status for status, *_ in workers] == [-signal.SIGKILL, 3], log
    assert "Start all workers again. The run goes on from step 4." in workers[1][1]

    workers, log = run(tmp_path, "one-is-told-to-stop", ["", "SIGTERM@9"])
    assert [status for status, *_ in workers] == [4, 4], log
    assert json.loads((tmp_path / "checkpoints" / "state.json").read_text())["log"]["step"] == 10, "they stop together"

    workers, log = run(tmp_path, "goes-on", ["", ""])
    assert [status for status, *_ in workers] == [0, 0], log
    for _, _, results in workers:
        assert results["done"] == 10
        assert_same(results, alone)


GOOD = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


def test_good_tf_configs():
    check_tf_config(json.dumps(GOOD))
    check_tf_config(json.dumps(GOOD | {"cluster": {"chief": ["[::1]:3"], "worker": ["a:1", "b:2"]}}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no TF_CONFIG"),
        ("", "no TF_CONFIG"),
        ("{'cluster'", "which is no JSON"),
        ("[1]", "without the objects 'cluster' and 'task'"),
        ({"task": None}, "without the objects 'cluster' and 'task'"),
        ({"cluster": {}}, "it may have 'worker' and 'chief' only"),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:2"]}}, r"\['ps', 'worker'\]; it may have"),
        ({"cluster": {"worker": []}}, "must be 'host:port'"),
        ({"cluster": {"worker": ["a"]}}, "must be 'host:port'"),
        ({"cluster": {"worker": ["a:0", "b:x"]}}, "must be 'host:port'"),
        ({"cluster": {"worker": "a:1"}}, "must be 'host:port'"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, "some are the same"),
        ({"cluster": {"chief": ["a:1", "b:2"], "worker": ["c:3"]}}, "2 chiefs"),
        ({"task": {"type": "chief", "index": 0}}, "task type 'chief', which the cluster does not have"),
        ({"task": {"type": "worker", "index": 2}}, "task index 2 of 2 'worker'"),
        ({"task": {"type": "worker", "index": "0"}}, "task index '0'"),
        ({"task": {"type": "worker"}}, "task index None"),
    ],
)
def test_broken_tf_configs(monkeypatch, text, message):
    if isinstance(text, dict):
        text = json.dumps(GOOD | text)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message) as raised:
        make_strategy("multi_worker")
    assert '{"cluster": {"worker": ["host-a:2222"' in str(raised.value), "an example"


def test_too_late_for_several_workers(monkeypatch):
    tf.zeros(1)
    monkeypatch.setenv("TF_CONFIG", tf_config(free_addresses(1), 0))
    with pytest.raises(RuntimeError, match="before TensorFlow runs its first operation"):
        make_strategy("multi_worker")


def test_a_worker_that_does_not_start(monkeypatch):
    addresses = free_addresses(3)
    monkeypatch.setenv("TF_CONFIG", tf_config(addresses, 1))
    monkeypatch.setattr(distribution, "WAIT_FOR_WORKERS_SECONDS", 0.1)
    with (
        socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))),
        pytest.raises(WorkerLostError, match=f"within 0.1 seconds. Received: no answer from {addresses[2]} "),
    ):
        make_strategy("multi_worker")


def test_a_port_that_is_taken(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"]
        monkeypatch.setenv("TF_CONFIG", tf_config(addresses, 0))
        with pytest.raises(ValueError, match=f"free port.*Received: {addresses[0]}, .*in use"):
            make_strategy("multi_worker")
