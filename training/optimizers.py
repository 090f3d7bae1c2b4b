"""AdamW as BERT uses it, on TensorFlow's fused Adam kernel, and what every optimizer here does beside its update."""

from __future__ import annotations

import re

import keras
import tensorflow as tf

# Devlin et al. 2019, google-research/bert optimization.py: no decay on biases and LayerNorm, epsilon 1e-6, clip at 1.0.
NO_DECAY = re.compile(r"(^|/)(bias|gamma|beta)$")


class ClippingOptimizer(keras.optimizers.AdamW):
    """Two moments a variable, clipping by the global norm, accumulation, rates that differ; a subclass has the update.

    It differs from Keras' in three ways: the variables without decay follow from their names, so that a reloaded
    optimizer has them too; the norm is taken after the gradients of all replicas are summed, so that clipping does not
    depend on their number; and gradients are accumulated in a way that several replicas can take (Keras'
    `gradient_accumulation_steps` cannot).

    `gradient_norm` is a variable with the global norm of the last update's gradient, before clipping. It belongs to no
    checkpoint: every update sets it.

    Args:
      learning_rate: a float or a schedule.
      weight_decay: decoupled decay, relative to the learning rate.
      clip_norm: the greatest global norm of the gradient; None does not clip.
      accumulation_steps: batches whose mean gradient makes one update; a schedule counts batches.
      total_steps: batches in all, the last of which makes an update with those that are left; None where nobody knows.
      rates: `(pattern, factor, first_step)`: variables whose path the pattern is found in learn at `factor` times the
        rate, and from that step on. The first that fits counts; a variable that none fits learns at the rate itself.
    """

    def __init__(
        self,
        learning_rate=1e-4,
        weight_decay=0.01,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        clip_norm=1.0,
        accumulation_steps=1,
        total_steps=None,
        rates=(),
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            **kwargs,
        )
        self.clip_norm = clip_norm
        self.accumulation_steps = accumulation_steps
        self.total_steps = total_steps
        self._accumulators = []
        self.rates = [tuple(rate) for rate in rates]
        self._rate_of = {}
        self._without_decay = set()
        # Of the current step, shared by every variable's update.
        self._beta_powers = self._clip_scale = self._is_update = None
        # In a dictionary that neither Keras nor TensorFlow looks into: checkpoints stay as they were without it.
        self.__dict__["_untracked"] = {}

    @property
    def gradient_norm(self):
        """The global norm of the last update's gradient before clipping, a scalar variable; None before `build`."""
        return self._untracked.get("gradient_norm")

    def build(self, var_list):
        super().build(var_list)
        self._without_decay = {
            self._var_key(variable)
            for variable in var_list
            if NO_DECAY.search(variable.path) or not self._use_weight_decay(variable)
        }
        if self.accumulation_steps > 1:
            self._accumulators = [self.add_variable_from_reference(one, name="accumulator") for one in var_list]
        for variable in var_list:
            fits = (rate for rate in self.rates if re.search(rate[0], variable.path))
            self._rate_of[self._var_key(variable)] = next(fits, ("", 1.0, 0))
        with self._distribution_strategy.scope():
            self._untracked["gradient_norm"] = keras.Variable(
                0.0, dtype="float32", trainable=False, aggregation="only_first_replica", name="gradient_norm"
            )

    def _apply_weight_decay(self, variables):
        """Left to `update_step`, where the variable is in the cache already."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        grads = [tf.convert_to_tensor(grad) for grad in grads]  # the fused kernel takes no IndexedSlices
        batches = self.accumulation_steps
        step = tf.cast(self.iterations // batches + 1, tf.float32)
        self._beta_powers = (tf.pow(self.beta_1, step), tf.pow(self.beta_2, step))
        replica_context = tf.distribute.get_replica_context()
        replicas = 1 if replica_context is None else replica_context.num_replicas_in_sync
        if replicas > 1:
            grads = replica_context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        if batches > 1:
            self._is_update, share = tf.equal((self.iterations + 1) % batches, 0), 1.0
            if self.total_steps is not None and self.total_steps % batches:
                is_last = tf.equal(self.iterations + 1, self.total_steps)
                self._is_update |= is_last
                share = tf.where(is_last, batches / (self.total_steps % batches), 1.0)  # a mean over fewer
            places = [self._get_variable_index(variable) for variable in trainable_variables]
            grads = [
                (self._accumulators[place] + grad / batches) * share for place, grad in zip(places, grads, strict=True)
            ]
        norm = tf.cast(tf.linalg.global_norm(grads), tf.float32)
        if self.clip_norm is not None:
            self._clip_scale = self.clip_norm / tf.maximum(norm, self.clip_norm)
        if batches > 1:
            norm = tf.where(self._is_update, norm, self.gradient_norm)
        self.gradient_norm.assign(norm)
        if replicas > 1:
            # The superclass sums over the replicas again: hand it an equal part from each.
            grads = [grad / replicas for grad in grads]
        return super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        if self.accumulation_steps == 1:
            self._update(gradient, variable, learning_rate)
            return
        accumulator = self._accumulators[self._get_variable_index(variable)]

        def update():
            self._update(gradient, variable, learning_rate)
            accumulator.assign(tf.zeros_like(gradient))

        def keep():
            accumulator.assign(gradient)

        # Within the update of one variable: replicas meet before, and cannot meet inside a condition.
        tf.cond(self._is_update, update, keep)

    def _update(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        rate = tf.cast(learning_rate, dtype)
        _, factor, first_step = self._rate_of[self._var_key(variable)]
        if factor != 1.0:
            rate = rate * factor
        if first_step:
            rate = tf.where(self.iterations >= first_step, rate, tf.zeros_like(rate))
        gradient = tf.cast(gradient, dtype)
        if self.clip_norm is not None:
            gradient = gradient * tf.cast(self._clip_scale, dtype)
        self._update_variable(gradient, variable, rate)

    def _decays(self, variable) -> bool:
        return self._var_key(variable) not in self._without_decay

    def _update_variable(self, gradient, variable, rate):
        """Updates one variable and its moments with a clipped gradient, at its own rate."""
        raise NotImplementedError

    def get_config(self):
        own = {name: getattr(self, name) for name in ("clip_norm", "accumulation_steps", "total_steps", "rates")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("keras_bert")
class AdamW(ClippingOptimizer):
    """AdamW (Loshchilov and Hutter 2019) that spares biases and LayerNorm and clips by the global norm.

    The update is one fused kernel a variable, a third of the time on a CPU. Arguments: see `ClippingOptimizer`.
    """

    def __init__(self, *args, name="adamw", **kwargs):
        super().__init__(*args, name=name, **kwargs)

    def _update_variable(self, gradient, variable, rate):
        dtype, index = variable.dtype, self._get_variable_index(variable)
        if self.weight_decay and self._decays(variable):
            variable.assign(variable * (1.0 - rate * self.weight_decay))
        beta_1_power, beta_2_power = self._beta_powers
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(beta_1_power, dtype),
            beta2_power=tf.cast(beta_2_power, dtype),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
