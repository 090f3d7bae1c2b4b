"""The functional keras.Model that every builder returns."""

from __future__ import annotations

import sys

import keras


@keras.saving.register_keras_serializable("keras_bert")
class BertModel(keras.Model):
    """A functional `keras.Model` whose first training step comes early; everything else is plain Keras.

    It also trains and evaluates under TensorFlow's `MultiWorkerMirroredStrategy`, where Keras' own `fit` fails on the
    first batch, and then on the logs of the first step. What does so is in use under that strategy alone.
    """

    def compile(self, *args, jit_compile="auto", auto_scale_loss=True, **kwargs):
        """As `keras.Model.compile`, except for two defaults that decide how long the first step takes.

        `jit_compile="auto"` leaves XLA to devices that gain from it: on a CPU it makes no step of BERT faster and costs
        half a minute of compilation. The optimizer's variables are made here: made inside the first step, as Keras
        does, they have TensorFlow trace the whole model twice.

        `auto_scale_loss` looks at the layers: their dtype policy may be "mixed_float16" where the model's own is not.
        """
        on_tensorflow = keras.backend.backend() == "tensorflow"
        # Under several workers the compiled step would hold what they exchange.
        if jit_compile == "auto" and on_tensorflow and (self._has_workers() or not _has_accelerator()):
            jit_compile = False
        super().compile(*args, jit_compile=jit_compile, auto_scale_loss=auto_scale_loss, **kwargs)
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and self.optimizer is not None and not scaled and self._has_float16():
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer, name="loss_scale_optimizer")
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def _has_float16(self) -> bool:
        return any(layer.dtype_policy.name == "mixed_float16" for layer in self.layers)

    def make_train_function(self, force=False):
        """As Keras', and under several workers one that gives the means of all workers' logs."""
        if not self._has_workers():
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = self._make_multi_worker_function(self.train_step)
        return self.train_function

    def make_test_function(self, force=False):
        """As Keras', and under several workers one that gives the means of all workers' logs."""
        if not self._has_workers():
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = self._make_multi_worker_function(self.test_step)
        return self.test_function

    def _has_workers(self) -> bool:
        return keras.backend.backend() == "tensorflow" and is_multi_worker(self.distribute_strategy)

    def _make_multi_worker_function(self, step):
        tf = sys.modules["tensorflow"]

        strategy = self.distribute_strategy

        def on_replica(data):
            logs = step(data)
            # In one operation; Keras would reduce each log, and along an axis that a scalar does not have.
            values = tf.stack([tf.cast(value, tf.float32) for value in logs.values()])
            values = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)
            return dict(zip(logs, tf.unstack(values), strict=True))

        def one_step(data):
            logs = strategy.run(on_replica, args=(data,))
            return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        if not self.run_eagerly:
            one_step = tf.function(one_step, reduce_retracing=True, jit_compile=self.jit_compile)

        def function(batches):
            for _ in range(self.steps_per_execution):
                logs = one_step(next(batches))
            return logs

        return function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras makes losses and metrics for the first batch, which it takes for something to average over the workers.
        # All that counts are its shapes: those of a local replica's part do.
        if iterator is not None and self._has_workers():
            tf = sys.modules["tensorflow"]

            strategy = self.distribute_strategy
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0],
                next(batches),
                expand_composites=False,
            )
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def compile_from_config(self, config):
        """Compiles a reloaded model as it was; Keras leaves that to a class with a `compile` of its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))


def _has_accelerator() -> bool:
    return bool(keras.distribution.list_devices("gpu") or keras.distribution.list_devices("tpu"))


def is_multi_worker(strategy) -> bool:
    """Whether a strategy of TensorFlow spans several processes, each of which runs the same program."""
    # Whoever has a strategy has loaded it; the core itself runs on every backend and loads none.
    tf = sys.modules["tensorflow"]
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    resolver = strategy.cluster_resolver
    return resolver is not None and bool(resolver.cluster_spec().as_dict())
