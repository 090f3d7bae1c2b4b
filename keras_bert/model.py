"""The functional keras.Model that every builder returns."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("keras_bert")
class BertModel(keras.Model):
    """A functional `keras.Model` whose first training step comes early; everything else is plain Keras."""

    def compile(self, *args, jit_compile="auto", auto_scale_loss=True, **kwargs):
        """As `keras.Model.compile`, except for two defaults that decide how long the first step takes.

        `jit_compile="auto"` leaves XLA to devices that gain from it: on a CPU it makes no step of BERT faster and costs
        half a minute of compilation. The optimizer's variables are made here: made inside the first step, as Keras
        does, they have TensorFlow trace the whole model twice.

        `auto_scale_loss` looks at the layers: their dtype policy may be "mixed_float16" where the model's own is not.
        """
        if jit_compile == "auto" and keras.backend.backend() == "tensorflow" and not _has_accelerator():
            jit_compile = False
        super().compile(*args, jit_compile=jit_compile, auto_scale_loss=auto_scale_loss, **kwargs)
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and self.optimizer is not None and not scaled and self._has_float16():
            self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer, name="loss_scale_optimizer")
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def _has_float16(self) -> bool:
        return any(layer.dtype_policy.name == "mixed_float16" for layer in self.layers)

    def compile_from_config(self, config):
        """Compiles a reloaded model as it was; Keras leaves that to a class with a `compile` of its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))


def _has_accelerator() -> bool:
    return bool(keras.distribution.list_devices("gpu") or keras.distribution.list_devices("tpu"))
