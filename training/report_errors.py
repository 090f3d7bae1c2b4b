"""A model's errors as a report shows them: what was given, what was predicted, and what is right."""

import re
from collections.abc import Mapping, Sequence

from keras_bert.training.entities import entity_spans
from keras_bert.training.plots import escape, is_number

MOST_ERRORS = 20
_MOST_CHARS = 400  # of a text
_MOST_WORDS = 60  # of a tagged sentence
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_ENTITY_TAG = re.compile(r"O|[BIESLUM](-.*)?")


def error_list(errors: Sequence[Mapping]) -> str:
    """A list of errors, each shown by what it holds; "" where there are none.

    `words`, `tags` and `predicted`; `question`, `context`, `answers` and `predicted`; `question`, `choices`, and the
    numbers `label` and `predicted`; or `text` (and `text_pair`), `label`, `predicted` and `probability`.
    """
    items = "".join(f"<li>{_shown(error)}</li>" for error in errors[:MOST_ERRORS])
    return f'<ul class="errors">{items}</ul>' if items else ""


def _shown(error: Mapping) -> str:
    if "words" in error:
        return _tagged(error)
    if "choices" in error:
        return _choice(error)
    if "context" in error:
        return _answer(error)
    return _labelled(error)


def _labelled(error: Mapping) -> str:
    texts = [error[key] for key in ("text", "text_pair") if error.get(key) is not None]
    quotes = "".join(f'<blockquote dir="auto">{escape(_clipped(str(text)))}</blockquote>' for text in texts or [""])
    return _verdict(error.get("predicted"), error.get("label"), error.get("probability"), "") + quotes


def _answer(error: Mapping) -> str:
    answers = [str(answer) for answer in error.get("answers") or []]
    note = f"F1 {error['f1']:.2f}" if is_number(error.get("f1")) else ""
    return (
        f'<p class="question" dir="auto">{escape(_clipped(str(error.get("question"))))}</p>'
        + _verdict(error.get("predicted") or None, " | ".join(dict.fromkeys(answers)) or None, None, note)
        + f'<blockquote dir="auto">{_marked(str(error["context"]), answers)}</blockquote>'
    )


def _choice(error: Mapping) -> str:
    rows, probability = [], error.get("probability")
    sure = f" {100 * probability:.1f}%" if is_number(probability) else ""
    for index, choice in enumerate(error["choices"]):
        right, chosen = index == error.get("label"), index == error.get("predicted")
        mark = (
            ' <span class="good">✓ right</span>'
            if right
            else f' <span class="bad">✗ chosen{sure}</span>'
            if chosen
            else ""
        )
        rows.append(f'<li dir="auto">{escape(_clipped(str(choice)))}{mark}</li>')
    question = escape(_clipped(str(error.get("question"))))
    return f'<p class="question" dir="auto">{question}</p><ol class="choices">{"".join(rows)}</ol>'


def _tagged(error: Mapping) -> str:
    words, true, predicted = ([str(item) for item in error[key]] for key in ("words", "tags", "predicted"))
    wrong = [index for index, pair in enumerate(zip(true, predicted, strict=True)) if pair[0] != pair[1]]
    start = max(0, wrong[0] - 10) if wrong and len(words) > _MOST_WORDS else 0
    if not all(_ENTITY_TAG.fullmatch(tag) for tag in (*true, *predicted)):
        spans = [(index, index + 1, f"{predicted[index]} instead of {true[index]}") for index in wrong]
        return _sentence("", words, [(*span, "miss") for span in spans], start)
    # The rules of IOBES, whose prefixes are all there are, read the other schemes as well.
    given, found = (
        [(first, last, kind) for kind, first, last in entity_spans(tags, "IOBES")] for tags in (true, predicted)
    )
    return "".join(
        _sentence(name, words, [(*span, "hit" if span in other else "miss") for span in spans], start)
        for name, spans, other in (("true", given, found), ("predicted", found, given))
    )


def _sentence(name: str, words: Sequence[str], spans: Sequence[tuple[int, int, str, str]], start: int) -> str:
    """Words from `start` on, with marked spans (first, after the last, text, style)."""
    end = min(len(words), start + _MOST_WORDS)
    opening, closing = {}, {}
    for first, last, text, style in spans:
        if start <= first < end:
            opening[first] = f'<mark class="{style}">'
            closing[min(last, end) - 1] = f"<small>{escape(text)}</small></mark>"
    parts = ["… "] if start else []
    for index in range(start, end):
        gap = index > start and not (_CJK.match(words[index][:1]) and _CJK.match(words[index - 1][-1:]))
        parts.append((" " if gap else "") + opening.get(index, "") + escape(words[index]) + closing.get(index, ""))
    parts += [" …"] if end < len(words) else []
    label = f'<span class="badge">{name}</span> ' if name else ""
    return f'<p class="tagged" dir="auto">{label}{"".join(parts)}</p>'


def _verdict(predicted: object, label: object, probability: object, note: str) -> str:
    note = f"{100 * probability:.1f}%" if is_number(probability) else note
    note = f' <span class="note">{note}</span>' if note else ""
    return (
        f'<p class="verdict" dir="auto"><span class="bad">{escape(_value(predicted))}</span>{note}'
        f" instead of <strong>{escape(_value(label))}</strong></p>"
    )


def _value(value: object) -> str:
    if value is None or value == []:
        return "nothing"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.3f}" if isinstance(value, float) else _clipped(str(value))


def _marked(context: str, answers: Sequence[str]) -> str:
    """The part of a long text around the first of the answers that it holds, which is marked."""
    place, answer = next(((context.find(a), a) for a in answers if a and a in context), (0, ""))
    start, end = max(0, place - _MOST_CHARS // 2), place + len(answer) + _MOST_CHARS // 2
    before, after = context[start:place], context[place + len(answer) : end]
    mark = f'<mark class="hit">{escape(answer)}</mark>' if answer else ""
    return f"{'… ' * (start > 0)}{escape(before)}{mark}{escape(after)}{' …' * (end < len(context))}"


def _clipped(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + " …"
