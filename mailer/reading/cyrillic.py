"""Tells the Cyrillic 8-bit charsets apart by the letter pairs of the words in them. Called by `charsets`."""

import re
from itertools import pairwise

from mailer.reading.letterpairs import LETTERS, PAIRS

# The more usual ones come first: where two fit equally well, as may happen with lower-case words, the first is taken.
_CHARSETS = ("cp1251", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic")
# Texts decoded in their own charset score above 5.5; in a wrong one, and Western texts, below 4.
_LIKELY = 4.7
# Bytes that are searched for words with 8-bit letters, and bytes of such words that are scored: more change nothing.
_LOOK_AT, _SAMPLE = 65_536, 1_000
_LONGEST_WORD = 100
_8_BIT = re.compile(rb"[\x80-\xff]")
_CYRILLIC_PAIR = re.compile("[а-яёєіїґ]{2}", re.IGNORECASE)
_OTHER = re.compile(f"[^{LETTERS[1:]}]+")
# What is unusual in Cyrillic text: a capital after a small letter, a Latin letter beside a Cyrillic one, a punctuation
# mark on the wrong side of a word, and a character that is neither a letter nor a usual mark.
_SMALL, _ANY = "[а-яёєіїґ]", "[а-яёєіїґА-ЯЁЄІЇҐ]"
_UNUSUAL = re.compile(
    rf"{_SMALL}[А-ЯЁЄІЇҐ]|[a-zA-Z]{_ANY}|{_ANY}[a-zA-Z]|(?<!{_ANY})[’•…№»”—–](?={_ANY})|{_ANY}[№«„•]"
    r"|[^\x00-\x7fа-яёєіїґА-ЯЁЄІЇҐ\xa0«»—–„“”’‘…№•©°]"
)
_QUOTATION_MARKS = re.compile("[«»„“”]")


def charset(data: bytes) -> str | None:
    """The charset, by Python's name, in which the bytes are clearly Cyrillic text; None if there is none."""
    sample = _sample(data)
    scores = {name: _likeness(sample.decode(name, "replace")) for name in _CHARSETS}
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] >= _LIKELY else None


def _sample(data: bytes) -> bytes:
    """The words with 8-bit letters in them, as many as the statistics need."""
    first = _8_BIT.search(data)
    start = max(first.start() - _LONGEST_WORD, 0) if first else 0
    sample = b" ".join(word for word in data[start : start + _LOOK_AT].split() if not word.isascii())
    return sample[:_SAMPLE]


def _likeness(text: str) -> float:
    """How usual the letter pairs of the text are in Cyrillic, 0 to 9; lowered by what is unusual in Cyrillic text."""
    if not _CYRILLIC_PAIR.search(text):
        return 0
    letters = _OTHER.sub(" ", text.lower())
    pairs = [PAIRS[first + second] for first, second in pairwise(f" {letters} ") if first != " " or second != " "]
    unusual = len(_UNUSUAL.findall(text)) + len(_QUOTATION_MARKS.findall(text)) % 2
    return (sum(pairs) - 9 * unusual) / len(pairs)
