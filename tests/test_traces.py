"""What a training registers is let go; that a whole run leaves no variables behind is in test_finetune.py."""

import gc
import weakref

import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from keras_bert.training.traces import gradients_forgotten


def traced_gradient():
    """A function with a custom gradient, traced, differentiated and dropped; its graph, weakly."""

    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda upstream: 2.0 * upstream

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = double(x)
        return tape.gradient(y, x)

    assert gradient(tf.constant(3.0)) == 2.0
    return weakref.ref(gradient.get_concrete_function(tf.constant(3.0)).graph)


def test_the_graph_of_a_custom_gradient_is_let_go():
    with gradients_forgotten():
        graph = traced_gradient()
    gc.collect()
    assert graph() is None
    kept = traced_gradient()
    gc.collect()
    assert kept() is not None, "TensorFlow lets go of it by itself: training/traces.py has nothing left to do"


def test_the_gradients_of_ops_stay():
    """A module that is imported for the first time while something trains registers those of its ops."""
    name = "OpOfAModuleThatIsImportedLate"
    with gradients_forgotten():
        ops.RegisterGradient(name)(lambda op, upstream: upstream)
    assert ops.gradient_registry.lookup(name) is not None


def test_an_error_passes():
    @gradients_forgotten()
    def fails():
        traced_gradient()
        raise KeyError("as it came")

    before = set(ops.gradient_registry.list())
    with pytest.raises(KeyError, match="as it came"):
        fails()
    assert set(ops.gradient_registry.list()) == before
