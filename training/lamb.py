"""LAMB: AdamW whose steps are as long, layer by layer, as the weights are large; for large batches."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_bert.training.optimizers import ClippingOptimizer


@keras.saving.register_keras_serializable("keras_bert")
class Lamb(ClippingOptimizer):
    """LAMB as published (You et al. 2020, algorithm 2), with bias correction and clipping by the global norm.

    With Adam's corrected moments, u = m / (sqrt(v) + epsilon) + weight_decay * x for each layer's weights x, and
    x <- x - rate * (|x| / |u|) * u. Where one of the norms is 0 the ratio counts as 1. Biases and LayerNorm have
    neither decay nor ratio, as in google-research/albert lamb_optimizer.py; the clipping at 1.0, before the moments, is
    that of NVIDIA's DeepLearningExamples. `keras.optimizers.Lamb` decays outside the ratio: another algorithm.

    A layer is a variable; query, key and value, one variable here, are three layers, as in the models that the paper's
    settings are for.

    Arguments: see `ClippingOptimizer`. The paper's decay is 0.01 (section 4), and its rates grow with the square root
    of the batch size.
    """

    def __init__(self, *args, name="lamb", **kwargs):
        super().__init__(*args, name=name, **kwargs)

    def _update_variable(self, gradient, variable, rate):
        dtype, index = variable.dtype, self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        beta_1_power, beta_2_power = (tf.cast(power, dtype) for power in self._beta_powers)
        momentum.assign(self.beta_1 * momentum + (1.0 - self.beta_1) * gradient)
        velocity.assign(self.beta_2 * velocity + (1.0 - self.beta_2) * tf.square(gradient))
        update = (momentum / (1.0 - beta_1_power)) / (tf.sqrt(velocity / (1.0 - beta_2_power)) + self.epsilon)
        if self._decays(variable):
            weights = tf.convert_to_tensor(variable)
            update = update + self.weight_decay * weights if self.weight_decay else update
            update = update * _trust_ratio(weights, update, parts=3 if "/qkv/" in self._path_of[index] else 1)
        variable.assign_sub(rate * update)

    def build(self, var_list):
        super().build(var_list)
        self._path_of = [variable.path for variable in var_list]


def _trust_ratio(weights, update, parts):
    """|weights| / |update| of each of the equal parts that the last axis has, `(..., width)` -> `(width,)`."""

    def norm(x):
        x = tf.reshape(x, [-1, parts, x.shape[-1] // parts])
        return tf.sqrt(tf.reduce_sum(tf.square(x), axis=[0, 2]))  # (parts,)

    of_weights, of_update = norm(weights), norm(update)
    ratio = tf.where((of_weights > 0) & (of_update > 0), tf.math.divide_no_nan(of_weights, of_update), 1.0)
    return tf.repeat(ratio, weights.shape[-1] // parts)
