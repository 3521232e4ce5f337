"""How often the charset of undeclared Cyrillic text is told right: `python -m tests.benchmarks.charsets`."""

from pathlib import Path

from mailer.reading import charsets

TEXTS = Path(__file__).parent.parent / "reading" / "texts"
LANGUAGES = ("russian", "ukrainian", "bulgarian")
CHARSETS = ("windows-1251", "koi8-u", "cp866", "iso-8859-5", "mac-cyrillic")
LENGTH = 40


def pieces(language: str, length: int = LENGTH) -> list[str]:
    """Stretches of text of that many characters, each beginning at a word."""
    found = []
    for line in (TEXTS / f"{language}.txt").read_text("utf-8").splitlines():
        words = line.split(" ")
        for first in range(0, len(words), 3):
            piece = " ".join(words[first:])[:length]
            if len(piece) == length:
                found.append(piece)
    return found


def share_right(language: str, charset: str, length: int = LENGTH) -> float:
    """The share of pieces that come back as they were; what the charset does not have is left out first."""
    right = total = 0
    for piece in pieces(language, length):
        data = piece.encode(charset, "ignore")
        if len(data) >= 0.9 * length:
            total += 1
            right += charsets.decode(data, None) == data.decode(charset)
    return right / total


def run(quick: bool) -> None:
    """Print the share that is told right, for each language and charset."""
    for length in (LENGTH, 20):
        print(f"\nUndeclared charsets told right, of 100 texts of {length} characters")
        print(f"{'':12}" + "".join(f"{charset:>14}" for charset in CHARSETS) + f"{'texts':>8}")
        for language in LANGUAGES:
            shares = [share_right(language, charset, length) for charset in CHARSETS]
            row = "".join(f"{100 * share:>14.1f}" for share in shares)
            print(f"{language:12}{row}{len(pieces(language, length)):>8}")


if __name__ == "__main__":
    run(quick=False)
