"""BERT's tokenizer in plain Python: nothing else is needed, and it can be read as a specification for other languages.

    tokenizer = BertTokenizer("folder of the bundle")
    tokenizer.encode("a lovely film")

It reads vocab.txt, bundle.json and characters.json, which says of every character what becomes of it, so that the ids
do not depend on the Unicode tables of a platform:

    "drop"      ranges of characters that are left out
    "space"     ranges of characters that part words
    "split"     ranges of characters that are words of their own: punctuation and ideographs
    "replace"   what takes the place of a character: lower case, and what it is made of but the accents
"""

import json
import re
from pathlib import Path

MAX_CHARACTERS_PER_WORD = 100


class BertTokenizer:
    def __init__(self, folder):
        folder = Path(folder)
        settings = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        rules = settings["tokenizer"]
        self.max_length = settings["max_length"]
        # By newlines only: a piece may be another character that Python takes for the end of a line.
        pieces = (folder / "vocab.txt").read_bytes().decode("utf-8").split("\n")
        self.ids = {piece: i for i, piece in enumerate(pieces[:-1])}
        special = rules["special_tokens"]
        self.cls, self.sep, self.unk, self.pad = (
            self.ids[special[role]] for role in ("cls_token", "sep_token", "unk_token", "pad_token")
        )
        found_whole = list(rules["added_tokens"])
        if not rules["split_special_tokens"]:
            found_whole += [*special.values(), *rules["additional_special_tokens"]]
        # Of several that begin at one place, the longest.
        found_whole = sorted(set(found_whole), key=len, reverse=True)
        self.found_whole = re.compile("|".join(map(re.escape, found_whole)) or r"(?!)")

        characters = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
        self.replace = {ord(one): others for one, others in characters["replace"].items()}
        for first, last in characters["drop"]:
            self.replace.update(dict.fromkeys(range(first, last + 1), ""))
        for first, last in characters["space"]:
            self.replace.update(dict.fromkeys(range(first, last + 1), " "))
        self.split = {chr(one) for first, last in characters["split"] for one in range(first, last + 1)}

    def tokenize(self, text):
        """Returns (id, start, end) of every piece: its characters in the text."""
        tokens, begin = [], 0
        for match in self.found_whole.finditer(text):
            tokens += self._tokenize_plain(text, begin, match.start())
            tokens.append((self.ids[match.group()], match.start(), match.end()))
            begin = match.end()
        return tokens + self._tokenize_plain(text, begin, len(text))

    def encode(self, text, text_pair=None, max_length=None):
        """Returns input_ids, token_type_ids and attention_mask of "[CLS] text [SEP]", or "[CLS] text [SEP] pair [SEP]".

        What is longer than `max_length` is cut at the end of the text; of a pair, the longer of both is cut first.
        """
        texts = [text] if text_pair is None else [text, text_pair]
        segments = [[token[0] for token in self.tokenize(one)] for one in texts]
        places = (max_length or self.max_length) - 1 - len(segments)
        kept = [len(segment) for segment in segments]
        if len(kept) == 1:
            kept = [min(kept[0], places)]
        elif sum(kept) > places:
            first, second = kept
            half = places - places // 2 if first > second else places // 2
            kept = [min(first, max(half, places - second)), min(second, max(places - half, places - first))]
        ids, types = [self.cls], [0]
        for number, (segment, count) in enumerate(zip(segments, kept)):  # noqa: B905  for any Python 3
            ids += [*segment[:count], self.sep]
            types += [number] * (count + 1)
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids)}

    def _tokenize_plain(self, text, begin, end):
        tokens, word = [], []  # of a word, its characters and where each comes from
        for place in range(begin, end):
            for character in self.replace.get(ord(text[place]), text[place]):
                if character == " " or character in self.split:
                    tokens += self._pieces(word)
                    word = []
                if character in self.split:
                    tokens += self._pieces([(character, place)])
                elif character != " ":
                    word.append((character, place))
        return tokens + self._pieces(word)

    def _pieces(self, word):
        """The longest piece that the word begins with, then the longest one that goes on, and so forth."""
        if not word:
            return []
        letters = "".join(character for character, _ in word)
        tokens, start = [], 0
        while start < len(word) <= MAX_CHARACTERS_PER_WORD:
            prefix = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if prefix + letters[start:end] in self.ids), None)
            if end is None:
                break
            tokens.append((self.ids[prefix + letters[start:end]], word[start][1], word[end - 1][1] + 1))
            start = end
        return tokens if start == len(word) else [(self.unk, word[0][1], word[-1][1] + 1)]
