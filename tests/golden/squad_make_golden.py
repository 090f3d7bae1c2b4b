"""Writes squad_golden.json: questions, predictions, and their figures by transformers' copy of the official scorer.

transformers 5 no longer has it. Run from the repository's root, in an environment with an older one:
python tests/golden/squad_make_golden.py
"""

import json
import pathlib
import random
from types import SimpleNamespace

import transformers
from transformers.data.metrics import squad_metrics

ANSWERS = {
    "case": ["The Eiffel Tower", "Eiffel tower"],
    "articles": ["an apple a day"],
    "only an article": ["the"],
    "only punctuation": ["!?", "..."],
    "punctuation": ["U.S.A.", "the United States"],
    "space": ["  two\t words\n"],
    "zh": ["北京大学"],
    "zh spaced": ["北京 大学", "清华"],
    "zh punctuation": ["《红楼梦》，曹雪芹"],
    "ja": ["東京タワー"],
    "number": ["1,234.5", "1234"],
    "quotes": ["“curly” quote"],
    "accent": ["Café Noir"],
    "dotted": ["İstanbul STRASSE"],
    "repeated": ["to be or not to be"],
    "impossible": [],
    "impossible too": [],
}
PREDICTIONS = {
    "case": "eiffel TOWER!",
    "articles": "apple day",
    "only an article": "a",
    "only punctuation": "",
    "punctuation": "usa",
    "space": "two words three",
    "zh": "北京的大学",
    "zh spaced": "北京大学",
    "zh punctuation": "红楼梦",
    "ja": "東京",
    "number": "1234.5",
    "quotes": "curly quote",
    "accent": "cafe noir",
    "dotted": "istanbul straße",
    "repeated": "be to be be",
    "impossible": "",
    "impossible too": "the",
}


def drawn(count: int) -> tuple[dict, dict]:
    generator = random.Random(0)
    words = ["the", "a", "Paris", "tower,", "in", "1889", "built", "by", "Gustave", "(Eiffel)"]

    def phrase() -> str:
        return " ".join(generator.choices(words, k=generator.randint(1, 5)))

    answers = {f"q{i}": [phrase() for _ in range(generator.randint(0, 3))] for i in range(count)}
    predictions = {
        key: generator.choice([phrase(), "", *given, *(answer + " tower" for answer in given)])
        for key, given in answers.items()
    }
    return answers, predictions


def scored(answers: dict, predictions: dict, no_answer_scores: dict | None, threshold: float) -> dict:
    examples = [
        SimpleNamespace(qas_id=key, answers=[{"text": text} for text in given]) for key, given in answers.items()
    ]
    figures = dict(squad_metrics.squad_evaluate(examples, predictions, no_answer_scores, threshold))
    return {"threshold": threshold, "no_answer_scores": no_answer_scores, "figures": figures}


def main():
    generator = random.Random(1)
    cases = []
    for answers, predictions in ((ANSWERS, PREDICTIONS), drawn(120)):
        scores = {key: round(generator.uniform(-5, 5), 1) for key in answers}  # rounded: some are equal
        runs = [scored(answers, predictions, given, at) for given, at in ((None, 1.0), (scores, 0.0), (scores, -2.5))]
        answered = {key: given for key, given in answers.items() if given}
        runs_answered = [scored(answered, predictions, None, 1.0)]
        cases.append({"answers": answers, "predictions": predictions, "runs": runs})
        cases.append({"answers": answered, "predictions": predictions, "runs": runs_answered})
    golden = {"made_with": f"transformers {transformers.__version__}", "cases": cases}
    path = pathlib.Path(__file__).with_name("squad_golden.json")
    path.write_text(json.dumps(golden, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
