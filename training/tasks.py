"""The tasks by name."""

from __future__ import annotations

from keras_bert.checkpoints import ModelFolder
from keras_bert.training.classification import Classifier, MultiLabel, Regression
from keras_bert.training.embedding import Embedder
from keras_bert.training.fill_mask import MaskedLM
from keras_bert.training.multiple_choice import MultipleChoice
from keras_bert.training.question_answering import QuestionAnswerer
from keras_bert.training.tagging import TokenClassifier
from keras_bert.training.task import Task

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Classifier,
        MultiLabel,
        Regression,
        TokenClassifier,
        QuestionAnswerer,
        MultipleChoice,
        Embedder,
        MaskedLM,
    )
}


def task_of(folder: ModelFolder) -> Task:
    """The task of a trained model.

    Raises:
      ValueError: no task of this package trains such a model.
    """
    for kind in TASKS.values():
        if kind.head == folder.task and kind.problem_type in (None, folder.problem_type or kind.problem_type):
            return kind.of_folder(folder)
    raise ValueError(
        f"Expected a model for a task: {', '.join(TASKS)}. Received: one for {folder.task!r}; train it with "
        "keras-bert finetune --task."
    )
