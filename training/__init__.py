"""Corpora, tf.data pipelines, optimizers, pretraining, fine-tuning, evaluation and reports."""
