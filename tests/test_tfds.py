import numpy as np
import pytest

from keras_bert.training.conll import read_tagged
from keras_bert.training.squad import read_squad
from keras_bert.training.tables import choice_labels, float_labels, read_table

tfds = pytest.importorskip("tensorflow_datasets")

LABELS = ["negative", "positive"]
TAGS = ["O", "B-PER", "I-PER"]
ROWS = 20


def example(number, labelled=True):
    return {
        "sentence": f"中文 {number}",
        "label": number % 2 if labelled else -1,
        "score": 4.2,
        "tokens": ["Mr", "Ng", "is"],
        "ner": [1, 2, 0],
        "item": {"stem": "why?", "choices": [{"text": text, "letter": text[0]} for text in ("because", "no")]},
        "best": 1,
        "id": f"q{number}",
        "context": "It is in Paris.",
        "question": f"where {number}?",
        "answers": {"text": ["Paris"], "answer_start": [9 if number else 8]},
        "spans": [[number], []],
    }


def features():
    text, integer = tfds.features.Text, tfds.features.Scalar(np.int32)
    return tfds.features.FeaturesDict(
        {
            "sentence": text(),
            "label": tfds.features.ClassLabel(names=LABELS),
            "score": tfds.features.Scalar(np.float32),
            "tokens": tfds.features.Sequence(text()),
            "ner": tfds.features.Sequence(tfds.features.ClassLabel(names=TAGS)),
            "item": {"stem": text(), "choices": tfds.features.Sequence({"text": text(), "letter": text()})},
            "best": integer,
            "id": text(),
            "context": text(),
            "question": text(),
            "answers": tfds.features.Sequence({"text": text(), "answer_start": integer}),
            "spans": tfds.features.Sequence(tfds.features.Sequence(integer)),
        }
    )


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorflow_datasets")

    # Not registered, as on a machine that has the files and not the code that made them.
    class SmallTask(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="one")]

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True)

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(ROWS), "test": self._generate_examples(3, labelled=False)}

        def _generate_examples(self, rows, labelled=True):
            for number in range(rows):
                yield number, example(number, labelled)

    SmallTask(data_dir=folder, config="one").download_and_prepare()
    return folder


@pytest.fixture(autouse=True)
def found(data_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_folder))


def test_names_of_classes_and_parts_of_splits():
    read = read_table("tfds:small_task/one", {"text": "sentence"})
    assert read.columns == {
        "text": [f"中文 {number}" for number in range(ROWS)],
        "label": [LABELS[number % 2] for number in range(ROWS)],
    }
    assert read.where(0) == "tfds:small_task/one#train, example 1"
    part = read_table("tfds:small_task/one:1.0.0#train[10%:20%]", {"text": "sentence"})
    assert part["text"] == ["中文 2", "中文 3"]


def test_a_split_that_is_not_labelled():
    read = read_table("tfds:small_task/one", {"text": "sentence"}, ("text",), ("label",), split="dev")
    assert (read.name, len(read), "label" in read) == ("tfds:small_task/one#test", 3, False)
    with pytest.raises(ValueError, match=r"#test, example 1: the label \(column 'label'\) is empty"):
        read_table("tfds:small_task/one#test", {"text": "sentence"})


def test_numbers_choices_tags_and_questions():
    source = "tfds:small_task/one"
    scores = read_table(source, {"text": "sentence", "label": "score"})
    assert set(scores["label"]) == {"4.2"}
    np.testing.assert_array_equal(float_labels(scores), np.full(ROWS, 4.2, np.float32))
    columns = {"question": "item.stem", "choices": "item.choices.text", "label": "best"}
    choices = read_table(source, columns, ("question", "choices", "label"))
    assert choices["choices"] == [["because", "no"]] * ROWS
    assert choice_labels(choices).tolist() == [1] * ROWS
    tagged = read_tagged(source, {"words": "tokens", "tags": "ner"})
    assert tagged.columns == {"words": [["Mr", "Ng", "is"]] * ROWS, "tags": [["B-PER", "I-PER", "O"]] * ROWS}
    questions = read_squad(source)
    assert questions.ids == [f"q{number}" for number in range(1, ROWS)]
    assert questions.answers == [[("Paris", 9)]] * (ROWS - 1)
    assert len(questions.bad_answers) == 1
    assert questions.bad_answers[0].startswith("tfds:small_task/one#train, example 1.answers[0] (id 'q0')")


BAD_SOURCES = [
    ("tfds:small_task/one", {}, "train", r"example 1: no column 'text'; the columns are .*'item.choices.text'"),
    ("tfds:small_task/one", {}, "validation", "expected a split named validation. .* splits 'train', 'test'"),
    ("tfds:small_task/one#dev", {}, "train", "expected one of the splits 'train', 'test', .* Received: 'dev'"),
    ("tfds:small_task/one#train[", {}, "train", r"or a part of one, as train\[:10%\]. Received: 'train\['"),
    ("tfds:small_task/one#", {}, "train", "Received: ''"),
    ("tfds:small_task/two", {}, "train", "expected a data set that TensorFlow Datasets knows"),
    ("tfds:no_such_task", {}, "train", "Received: 'no_such_task'"),
    ("tfds:", {}, "train", "Received: ''"),
    ("tfds:small_task/one", {"text": "score"}, "train", "column 'score': expected a string. Received: 4.2"),
]


@pytest.mark.parametrize(("source", "columns", "split", "pattern"), BAD_SOURCES)
def test_bad_sources(source, columns, split, pattern):
    with pytest.raises(ValueError, match=pattern) as caught:
        read_table(source, columns, split=split)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_is_not_there_and_cannot_be_downloaded(monkeypatch, data_folder):
    def without_network(self, **arguments):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", without_network)
    with pytest.raises(
        FileNotFoundError, match=r"tfds:glue/sst2: .* not in .*failed \(ConnectionError: no route to host\)"
    ):
        read_table("tfds:glue/sst2")
