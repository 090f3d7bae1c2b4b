"""The passes over a corpus on Apache Beam, in place of processes of this machine: `pip install "keras-bert[beam]"`.

The tasks are the very functions that `build_corpus` shares out to its workers, one a unit and one a shard, so
that the bytes are the same. They read the inputs and write the corpus by the paths that they are given: those have to
be absolute, and lie where every worker finds them, on a network file system or a mounted bucket.

    --runner=DirectRunner --direct_num_workers=4 --direct_running_mode=multi_processing     this machine, for tests
    --runner=FlinkRunner --flink_master=HOST:8081 --parallelism=64                          Flink
    --runner=SparkRunner --spark_master_url=spark://HOST:7077                               Spark
    --runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp \\
        --sdk_container_image=IMAGE                                                         Dataflow

The workers need this package and its requirements: on a cluster, an SDK container image that has them
(`--environment_type=DOCKER --environment_config=IMAGE` for Flink and Spark).
"""

from __future__ import annotations

import importlib
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_bert.atomic import atomic_file


class BeamWorkers:
    """Runs tasks as pipelines, with the interface of `corpus_workers.Workers`.

    Args:
      options: Beam's flags, see above.
      work: folder for the results, which every worker sees.
      prepare, arguments: as those of `Workers`.
    """

    def __init__(self, options: Sequence[str], work: Path, prepare: Callable, arguments: tuple):
        try:
            self._beam = importlib.import_module("apache_beam")
        except ImportError as error:
            raise ImportError('Building with Beam needs apache-beam: pip install "keras-bert[beam]"') from error
        self._options = list(options)
        self._results = work / "results"
        self._prepare, self._arguments = prepare, arguments

    def __enter__(self) -> BeamWorkers:
        return self

    def __exit__(self, *error) -> None:
        shutil.rmtree(self._results, ignore_errors=True)

    def map(self, function: Callable, tasks: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yields (number of the task, result) of `function(state, *task)`, when all are done."""
        beam = self._beam
        tasks = list(enumerate(tasks))
        shutil.rmtree(self._results, ignore_errors=True)
        self._results.mkdir(parents=True)
        if tasks:
            options = beam.options.pipeline_options.PipelineOptions(self._options)
            call = _Call(function, self._prepare, self._arguments, self._results)
            with beam.Pipeline(options=options) as pipeline:
                # Each task a bundle of its own: without the shuffle, one worker would get them all.
                numbered = pipeline | "tasks" >> beam.Create(tasks) | "share out" >> beam.Reshuffle()
                numbered | "work" >> beam.Map(call)
        for number, _ in tasks:
            with open(self._results / str(number), "rb") as file:
                error, result = pickle.load(file)
            if error is not None:
                raise error
            yield number, result


_prepared: dict[bytes, Any] = {}  # once for each process of a worker, whatever the bundles


class _Call:
    """Does a task and writes what comes of it to a file: Beam hands nothing back to who starts it."""

    def __init__(self, function, prepare, arguments, results):
        # Pickled here, by the names of functions, rather than by whatever Beam takes for it.
        self._call = pickle.dumps((function, prepare, arguments))
        self._results = str(results)

    def __call__(self, numbered) -> int:
        number, task = numbered
        error = result = None
        try:
            function, prepare, arguments = pickle.loads(self._call)
            if self._call not in _prepared:
                _prepared.clear()
                _prepared[self._call] = prepare(*arguments)
            result = function(_prepared[self._call], *task)
        except ValueError as raised:  # of the input: to try again would change nothing
            error = raised
        with atomic_file(Path(self._results, str(number))) as scratch:
            scratch.write_bytes(pickle.dumps((error, result)))
        return number
