import copy
import gzip
import json
from pathlib import Path

import pytest

from keras_bert.training.squad import Questions, read_squad

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CONTEXT = "😀诺曼人 came to Normandy. Normandy is in France."
QUESTIONS = [
    {"id": "a", "question": "Who?", "answers": [{"text": "诺曼人", "answer_start": 1}], "is_impossible": False},
    {"id": "b", "question": "Why?", "answers": [], "is_impossible": True},
]
ENGLISH = {"id": "c", "question": "Where?", "answers": [{"text": "in", "answer_start": 4}] * 2}


def squad(*qas, context=CONTEXT):
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


def write(path, document):
    path.write_text(json.dumps(document))
    return path


def answered(text, start, **more):
    return {"id": "a", "question": "q", "answers": [{"text": text, "answer_start": start}], **more}


def test_versions_1_and_2(tmp_path):
    document = squad(*QUESTIONS)
    document["data"].append(
        {"paragraphs": [{"context": "Paris", "qas": []}, {"context": "It is in.", "qas": [ENGLISH]}]}
    )
    document["data"][1]["paragraphs"][1]["qas"][0] = {**ENGLISH, "answers": [{"text": "in", "answer_start": 6}] * 2}
    path = write(tmp_path / "dev.json", document)
    expected = Questions(
        name=str(path),
        contexts=[CONTEXT, "It is in."],
        context_rows=[0, 0, 1],
        questions=["Who?", "Why?", "Where?"],
        ids=["a", "b", "c"],
        answers=[[("诺曼人", 1)], [], [("in", 6), ("in", 6)]],
        places=["data[0].paragraphs[0].qas[0]", "data[0].paragraphs[0].qas[1]", "data[1].paragraphs[1].qas[0]"],
        bad_answers=[],
        dropped=0,
    )
    assert read_squad(path) == expected
    assert expected.where(2) == f"{path}, data[1].paragraphs[1].qas[0]"
    compressed = tmp_path / "dev.json.gz"
    compressed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    assert read_squad(compressed).answers == expected.answers


def test_rows_as_hugging_face_lays_them_out(tmp_path):
    rows = [
        {"id": "a", "question": "Who?", "context": CONTEXT, "answers": {"text": ["诺曼人"], "answer_start": [1]}},
        {"id": "b", "question": "Why?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
    ]
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    read, other = read_squad(tmp_path / "t.jsonl"), read_squad(write(tmp_path / "t.json", squad(*QUESTIONS)))
    for name in ("contexts", "context_rows", "questions", "ids", "answers", "bad_answers", "dropped"):
        assert getattr(read, name) == getattr(other, name)
    assert read.places == ["line 1", "line 3"]
    rows = [{key: value for key, value in row.items() if key != "id"} for row in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_squad(tmp_path / "t.jsonl").ids == ["line 1", "line 2"]


def test_keys_of_rows_may_have_other_names(tmp_path):
    row = {"id": "a", "question": "Who?", "context": CONTEXT, "answers": {"text": ["诺曼人"], "answer_start": [1]}}
    names = {"question": "q", "context": "passage", "answers": "gold", "id": "key"}
    (tmp_path / "named.jsonl").write_text(json.dumps(row))
    (tmp_path / "t.jsonl").write_text(json.dumps({names[key]: value for key, value in row.items()}))
    expected = vars(read_squad(tmp_path / "named.jsonl"))
    read = vars(read_squad(tmp_path / "t.jsonl", columns=names))
    assert {**read, "name": ""} == {**expected, "name": ""}
    with pytest.raises(ValueError, match="t.jsonl, line 1: expected the key 'text'. Received an object with 'key'"):
        read_squad(tmp_path / "t.jsonl", columns={"context": "text"})
    with pytest.raises(ValueError, match="t.json: expected rows .* leave --columns out"):
        read_squad(write(tmp_path / "t.json", squad(*QUESTIONS)), columns=names)


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        ("Normandy", 12, 13),  # one off
        ("Normandy", 20, 23),  # nearer to the second
        ("Normandy", 16, 13),  # nearer to the first
        ("Normandy", -5, 13),
        ("France.", 10_000, 38),
        ("😀", 1, 0),  # a program that counted UTF-16 would say 0 for it and 2 for what follows
        ("normandy", 13, None),
        ("", 3, None),
    ],
)
def test_answers_that_do_not_stand_where_the_file_says(tmp_path, text, start, found):
    assert found is None or CONTEXT[found:].startswith(text)
    path = write(
        tmp_path / "t.json", squad(answered(text, start), {**QUESTIONS[0], "id": "b"}, QUESTIONS[1] | {"id": "x"})
    )
    skipped = read_squad(path)
    assert (skipped.ids, skipped.dropped, len(skipped.bad_answers)) == (["b", "x"], 1, 1)
    assert f"qas[0].answers[0] (id 'a'): expected {text!r} at character {start}" in skipped.bad_answers[0]
    moved = read_squad(path, "find")
    assert moved.ids == (["b", "x"] if found is None else ["a", "b", "x"])
    assert found is None or moved.answers[0] == [(text, found)]
    assert len(moved.bad_answers) == 1
    with pytest.raises(ValueError, match=r"t\.json, data\[0\].*\(id 'a'\): expected .* at character .* Received: '"):
        read_squad(path, "refuse")


def test_a_question_stays_while_one_of_its_answers_is_good(tmp_path):
    two = answered("诺曼人", 1)
    two["answers"] = [{"text": "诺曼人", "answer_start": 0}, *two["answers"]]
    read = read_squad(write(tmp_path / "t.json", squad(two)))
    assert (read.answers, len(read.bad_answers), read.dropped) == ([[("诺曼人", 1)]], 1, 0)
    assert read.bad_answers[0].endswith(f"Received: {CONTEXT[:20]!r}")


def test_contexts_without_questions_are_left_out(tmp_path):
    document = squad(answered("gone", 0), context="An article")
    document["data"] += squad(*QUESTIONS)["data"]
    document["data"][1]["paragraphs"][0]["qas"][0] = {**QUESTIONS[0], "id": "z"}
    read = read_squad(write(tmp_path / "t.json", document))
    assert (read.contexts, read.context_rows, read.dropped) == ([CONTEXT], [0, 0], 1)


def test_questions_to_predict_may_lack_answers(tmp_path):
    path = write(tmp_path / "t.json", squad({"id": "a", "question": "q"}))
    assert read_squad(path, answers_required=False).answers == [[]]
    with pytest.raises(
        ValueError, match=r"qas\[0\]: expected the key 'answers'. Received an object with 'id', 'question'"
    ):
        read_squad(path)


def test_a_document_of_100_000_characters(tmp_path):
    context = "中文 text " * 12_500
    read = read_squad(write(tmp_path / "t.json", squad(answered("中文", 99_992), context=context)))
    assert read.answers == [[("中文", 99_992)]]


def changed(path, value):
    """SQuAD's JSON with one value, named by its path, replaced."""
    document = copy.deepcopy(squad(*QUESTIONS))
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(document)


PARAGRAPH = ("data", 0, "paragraphs", 0)
QUESTION = (*PARAGRAPH, "qas", 0)
BAD_FILES = [
    ("", "t.json: the file is empty"),
    ("{\n  data", "t.json: expected SQuAD's JSON .* not JSON .*line 2"),
    ("[" * 100_000, "t.json: expected SQuAD's JSON .* not JSON"),
    ('{"data": ' + "9" * 5_000 + "}", "t.json: expected SQuAD's JSON"),
    ("[]", r"t.json: expected an object with 'data'. Received: \[\]"),
    ('{"rows": 1}', "t.json: expected the key 'data'. Received an object with 'rows'"),
    ('{"data": {}}', "t.json.data: expected a list. Received: {}"),
    ('{"data": []}', "t.json: expected questions, but the file has none"),
    (changed(("data", 0), "x"), r"t.json, data\[0\]: expected an object with 'paragraphs'. Received: \"x\""),
    (changed((*PARAGRAPH, "qas"), None), r"data\[0\].paragraphs\[0\].qas: expected a list. Received: null"),
    (changed((*PARAGRAPH, "context"), 3), r"data\[0\].paragraphs\[0\].context: expected a string. Received: 3"),
    (changed((*PARAGRAPH, "context"), " "), r"paragraphs\[0\].context: expected a text. Received: an empty one"),
    (changed((*PARAGRAPH, "context"), "a\ud800"), r"paragraphs\[0\].context: half of a surrogate pair"),
    (changed((*QUESTION, "question"), ""), r"qas\[0\].question: expected a text"),
    (changed((*QUESTION, "id"), 3), r"qas\[0\].id: expected a string. Received: 3"),
    (changed((*QUESTION, "id"), "b"), r"qas\[1\]: the id 'b' is that of data\[0\].paragraphs\[0\].qas\[0\] too"),
    (changed(QUESTION, {"question": "q", "answers": []}), r"qas\[0\]: expected the key 'id'"),
    (changed((*QUESTION, "answers"), "诺曼人"), r"qas\[0\].answers: expected a list"),
    (changed((*QUESTION, "answers"), ["诺曼人"]), r"answers\[0\]: expected an object with 'text'"),
    (
        changed((*QUESTION, "answers", 0, "answer_start"), "1"),
        r"answer_start: expected a whole number. Received: \"1\"",
    ),
    (changed((*QUESTION, "answers", 0, "answer_start"), True), "answer_start: expected a whole number. Received: true"),
    (changed((*QUESTION, "answers", 0, "answer_start"), 1.0), "answer_start: expected a whole number. Received: 1.0"),
    (changed((*QUESTION, "answers", 0, "text"), "\udc00"), r"answers\[0\]: half of a surrogate pair"),
    (changed((*QUESTION, "is_impossible"), 0), "is_impossible: expected true or false. Received: 0"),
    (changed((*QUESTION, "is_impossible"), True), r"qas\[0\]: expected answers .* Received: 1 answers and .* true"),
    (changed((*QUESTION, "answers"), []), r"qas\[0\]: expected answers .* Received: 0 answers and .* false"),
    ('{"data": "\0"}', "line 1: expected UTF-8 text, received a binary file"),
]


@pytest.mark.parametrize(("content", "pattern"), BAD_FILES)
def test_bad_files(tmp_path, content, pattern):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match=pattern):
        read_squad(tmp_path / "t.json")


BAD_ROWS = [
    ('{"question": "q", "answers": {}}', "t.jsonl, line 1: expected the key 'context'"),
    ('{"question": "q", "context": "c", "answers": {"text": ["c"]}}', "answers: expected the key 'answer_start'"),
    (
        '{"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": []}}',
        "t.jsonl, line 1.answers: expected one answer_start for each text. Received: 1 texts and 0 starts",
    ),
    ('{"question": "q", "context": "c", "answers": null}', "line 1.answers: expected a list. Received: null"),
    ("{", "t.jsonl, line 1: expected one JSON object per line"),
]


@pytest.mark.parametrize(("content", "pattern"), BAD_ROWS)
def test_bad_rows(tmp_path, content, pattern):
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(ValueError, match=pattern):
        read_squad(tmp_path / "t.jsonl")


def test_nothing_is_left(tmp_path):
    path = write(tmp_path / "t.json", squad(answered("gone", 0)))
    with pytest.raises(ValueError, match="expected questions; all 1 have bad answers only, the first: .*'gone'"):
        read_squad(path)
    with pytest.raises(ValueError, match="expected bad_answers of skip, find, refuse. Received: 'drop'"):
        read_squad(path, "drop")
    path.write_bytes(json.dumps(squad(*QUESTIONS)).encode("utf-16"))
    with pytest.raises(ValueError, match="expected UTF-8, received UTF-16"):
        read_squad(path)


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
@pytest.mark.parametrize(
    ("name", "contexts", "questions", "impossible"),
    [
        ("squad_subsets/squad1.1_train_17articles.json", 773, 3_939, 0),
        ("squad_subsets/squad1.1_dev_3articles.json", 147, 700, 0),
        ("squad_subsets/squad2.0_dev_subset.json", 173, 1_407, 702),
        ("xquad/xquad.en.json", 240, 1_190, 0),
        ("xquad/xquad.zh.json", 240, 1_190, 0),
    ],
)
def test_files_as_published(name, contexts, questions, impossible):
    read = read_squad(DATA / name, "refuse")
    assert (len(read.contexts), len(read)) == (contexts, questions)
    assert sum(not answers for answers in read.answers) == impossible
