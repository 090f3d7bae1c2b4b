"""tf.distribute strategies and run-wide settings by name."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from keras_bert.model import is_multi_worker

STRATEGIES = ("default", "mirrored")  # of one process and its devices, for every command
CLUSTER_STRATEGIES = ("multi_worker", "tpu")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}

_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}, the same cluster '
    "on every worker and another index on each"
)
WAIT_FOR_WORKERS_SECONDS = 600  # to start; TensorFlow waits an hour or for ever, and cannot be interrupted
WAIT_FOR_END_SECONDS = 60
# What TensorFlow raises where a worker is gone: its collective operations are aborted, or its sockets are closed.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError)


class WorkerLostError(RuntimeError):
    """Another worker of the run died or cannot be reached."""


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name; "mirrored" spans every GPU, or every logical CPU where there is no GPU.

    "multi_worker" spans the processes that the environment variable TF_CONFIG names, each of which runs the same
    program. It must be made before TensorFlow runs its first operation, and waits until every worker is there.

    Raises:
      ValueError: there is no such strategy, no TPU, or TF_CONFIG is missing or broken.
      RuntimeError: "multi_worker" was asked for too late.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    if name == "multi_worker":
        check_tf_config(os.environ.get("TF_CONFIG"))
        return _multi_worker(os.environ["TF_CONFIG"])
    if name == "tpu":
        return _tpu(os.environ.get("TPU_NAME", ""))
    if name == "parameter_server":
        raise ValueError(
            "Expected another strategy: model.fit of Keras 3 does not support parameter servers. Received: "
            "'parameter_server'; use 'multi_worker' for several machines and 'mirrored' for several GPUs of one."
        )
    raise ValueError(f"strategy must be one of {STRATEGIES + CLUSTER_STRATEGIES}. Received: {name!r}")


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for the process: each would number its collective operations from the start, and meet those of the others."""
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker(tf_config: str) -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")  # asks the drivers, and starts nothing
    kind = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind.AUTO if gpus else kind.RING)
    config = json.loads(tf_config)
    job, index = config["task"]["type"], config["task"]["index"]
    _wait_for_workers(config["cluster"][job][index], [address for job in config["cluster"].values() for address in job])
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise RuntimeError(
            "Expected make_strategy('multi_worker') before TensorFlow runs its first operation. Received: a program "
            "that has run one; call it first, before a tokenizer, a dataset or a model is made."
        ) from error


def _wait_for_workers(own: str, addresses: list[str]) -> None:
    """Waits until something listens at every worker's address: its process, as this one does here, or TensorFlow."""
    end = time.monotonic() + WAIT_FOR_WORKERS_SECONDS
    missing = [address for address in addresses if address != own]
    try:
        listener = socket.create_server(("", int(own.rpartition(":")[2])), backlog=max(len(addresses), 16))
    except OSError as error:
        raise ValueError(f"Expected a free port at this worker's own address. Received: {own}, {error}") from error
    with listener:
        while missing:
            host, _, port = missing[0].rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
                del missing[0]
            except OSError as error:
                if time.monotonic() > end:
                    raise WorkerLostError(
                        f"Expected every worker of TF_CONFIG to start within {WAIT_FOR_WORKERS_SECONDS} seconds. "
                        f"Received: no answer from {', '.join(missing)} ({error})"
                    ) from error
                time.sleep(0.2)


def _tpu(name: str) -> tf.distribute.Strategy:
    if not name and not tf.config.list_physical_devices("TPU"):
        raise ValueError(
            "Expected a TPU: one of this machine, with a TensorFlow that is built for it, or one that the environment "
            "variable TPU_NAME names. Received: neither; use 'mirrored' for GPUs."
        )
    return _tpu_of(name or "local")


@functools.cache
def _tpu_of(name: str) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
    if name != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def check_tf_config(text: str | None) -> None:
    """Raises a ValueError that says what the variable TF_CONFIG must hold, where it does not."""

    def fail(received: str):
        raise ValueError(
            "Strategy 'multi_worker' expects the environment variable TF_CONFIG to hold the workers' addresses and "
            f"which of them this one is: {_TF_CONFIG_EXAMPLE}. Received: {received}"
        )

    if not text:
        fail("no TF_CONFIG")
    try:
        config = json.loads(text)
    except ValueError as error:
        fail(f"{text!r}, which is no JSON: {error}")
    cluster, task = (config.get(key) if isinstance(config, dict) else None for key in ("cluster", "task"))
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        fail(f"{text!r}, without the objects 'cluster' and 'task'")
    if set(cluster) - {"chief", "worker"} or not cluster:
        fail(f"a cluster of {sorted(cluster)}; it may have 'worker' and 'chief' only")
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses or not all(map(_is_address, addresses)):
            fail(f"{addresses!r} as the addresses of {job!r}; each must be 'host:port'")
    if len(cluster.get("chief", [0])) > 1:
        fail(f"{len(cluster['chief'])} chiefs; there can be one")
    addresses = [address for job in cluster.values() for address in job]
    if len(set(addresses)) < len(addresses):
        fail(f"the addresses {addresses}, of which some are the same")
    job, index = task.get("type"), task.get("index")
    if job not in cluster:
        fail(f"the task type {job!r}, which the cluster does not have")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(cluster[job]):
        fail(f"the task index {index!r} of {len(cluster[job])} {job!r}")


def _is_address(address) -> bool:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files: the chief, or the first worker where there is none."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_id == 0


def gather_from_workers(strategy: tf.distribute.Strategy, number: float) -> list[float]:
    """The numbers of all replicas, in float32; every worker must call it at the same point of the program."""
    if not is_multi_worker(strategy):
        return [float(number)]
    return [float(value) for value in _gatherer(strategy)(tf.constant(number, tf.float32)).numpy()]


@functools.cache
def _gatherer(strategy: tf.distribute.Strategy):
    def gather(number):
        return strategy.gather(strategy.run(tf.reshape, args=(number, [1])), axis=0)

    return tf.function(gather)


def leave_together(strategy: tf.distribute.Strategy) -> None:
    """Waits until all workers have come this far, at most a minute for each; call it before a worker ends.

    One that leaves at once takes with it what the others have not yet received of the last operation, and they take it
    for dead.
    """
    if not is_multi_worker(strategy):
        return
    process, resolver, visit = context.context(), strategy.cluster_resolver, next(_VISITS)
    process.set_config_key_value(f"keras_bert/left/{visit}/{resolver.task_type}/{resolver.task_id}", "1")
    for job, addresses in resolver.cluster_spec().as_dict().items():
        for index in range(len(addresses)):
            # The first worker holds the keys: it is gone when it has seen all.
            with contextlib.suppress(tf.errors.OpError):
                process.get_config_key_value(
                    f"keras_bert/left/{visit}/{job}/{index}", timeout_in_ms=WAIT_FOR_END_SECONDS * 1000
                )


_VISITS = itertools.count()


@contextlib.contextmanager
def explain_lost_workers(
    strategy: Callable[[], tf.distribute.Strategy] = tf.distribute.get_strategy, hint: Callable[[], str] = str
) -> Iterator[None]:
    """Within the block, what TensorFlow raises where another worker has died becomes a `WorkerLostError`.

    TensorFlow notices within about a quarter of a minute: workers that no longer answer abort what all wait for.

    Args:
      strategy: gives the strategy of the run when it is asked.
      hint: gives what else the message says.
    """
    try:
        yield
    except _LOST as error:
        if not is_multi_worker(strategy()):
            raise
        raise WorkerLostError(
            f"Another worker of this run died, or cannot be reached. Start all workers again.{hint()} "
            f"Received: {type(error).__name__}: {str(error.message).splitlines()[0][:300]}"
        ) from error


def shard_batches(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A dataset of global batches of which `model.fit` gives every worker its part, and every replica its part of that.

    Every worker makes the whole batch, so that what depends on all of it, such as weights that average over the used
    places, is what one process would compute; then it keeps its slice: worker 0 the first, worker 1 the second. Without
    this, TensorFlow would deal out files where it finds enough of them, and the batches would be others.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Every replica must get an equal part of the batch, or the loss would weigh their examples differently."""
    replicas = strategy.num_replicas_in_sync
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"batch_size must be a multiple of the number of replicas, {replicas}. Received: batch_size={batch_size}"
        )


def set_randomness(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras; `deterministic` makes every op give the same bits in every run."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
