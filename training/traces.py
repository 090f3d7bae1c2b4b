"""What TensorFlow keeps of traced functions for as long as a process lives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tensorflow.python.framework import ops


@contextlib.contextmanager
def gradients_forgotten() -> Iterator[None]:
    """Lets go, at the end, of the gradients that functions traced inside have registered; works as a decorator.

    Each use of `tf.custom_gradient` in a graph enters a function of its own into a registry that is never emptied, and
    that function holds the graph and every variable it reads: a training's weights and moments, four times the model.
    Gradients are looked up while functions are traced, so what was traced inside needs them no more.
    """
    registry = ops.gradient_registry._registry  # no public name leads to it
    before = set(registry)
    try:
        yield
    finally:
        for name in set(registry) - before:
            if name.startswith("CustomGradient-"):  # others are an op's, which a module registers when it is imported
                del registry[name]
