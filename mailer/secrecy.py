"""Hides secrets in the words of others: mail servers and token endpoints may repeat what they were sent.

Promises to hide a secret in every form in which it is usually repeated: as it is, in another case, quoted, escaped (for
HTML, too), as a `repr`, encoded for URLs or quoted-printable, with its blanks squeezed, on two lines, in base64 or hex,
decoded wrongly, or (if it is long) in part. The patterns are made only when there are words to show. Pure; used by
`smtp.wire`, `smtp.reply`, `imap.wire`, `oauth` and `sasl`.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from html import escape

from mailer.errors import safe

_HIDDEN = "…"
# A secret shorter than this is hidden only as a whole word: many ordinary words may contain it.
_SHORT = 4  # characters
# Of a secret without blanks that is at least twice this long, parts of this length are hidden, with the words around
# them: servers cut what they repeat, or break it into lines.
_PART = 16  # characters
# A secret of at least so many characters is hidden also where it is broken into lines.
_BROKEN = 8  # characters
# One of at least so many without its blanks is hidden also where these are left out; shorter ones may be a word then.
_WITHOUT_BLANKS = 12  # characters
_KEPT = 8  # secrets at most: a script that runs for long gets many access tokens
_BACKSLASH = r"(?:\\|[%=+]5c)"


class Secrets:
    """The secrets that are not to be shown. Threads may share the object."""

    def __init__(self, *secrets: str) -> None:
        # Each secret with its patterns, once they were needed. Needs no lock: single dict operations are atomic.
        self._patterns: dict[str, tuple[re.Pattern[str], ...]] = {}
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Hide these secrets, too; when there are more than `_KEPT`, the oldest are forgotten."""
        for secret in secrets:
            if secret.strip() and secret not in self._patterns:
                self._patterns[secret] = ()
        for oldest in list(self._patterns)[:-_KEPT]:
            self._patterns.pop(oldest, None)

    def safe(self, text: str, given: str = "") -> str:
        """Foreign words made safe to show, without the secrets."""
        return safe(self.hide(text, given))

    def hide(self, text: str, given: str = "") -> str:
        """Foreign words without the secrets, but for those that are in what whoever will see the words has `given`.

        That may have been a guess, and a mask would tell that it was right.
        """
        for secret in sorted(self._patterns, key=len, reverse=True):  # the longest first: one may be a part of another
            patterns = self._patterns.get(secret) or _patterns(secret)
            if secret in self._patterns:
                self._patterns[secret] = patterns
            for pattern in () if given and patterns[0].search(given) else patterns:
                text = pattern.sub(_HIDDEN, text)
        return text


def _patterns(secret: str) -> tuple[re.Pattern[str], ...]:
    """The pattern that finds a whole secret and, for a long one, the pattern that finds parts of it."""
    octets = secret.encode("utf-8", "surrogatepass")
    encoded = b64encode(octets).decode()
    forms = [*map(_repeated, (secret.strip(), octets.hex()))]
    without_blanks = "".join(secret.split())  # as app passwords work, too
    if len(without_blanks) >= _WITHOUT_BLANKS:
        forms.append(_repeated(without_blanks))
    forms += [_repeated(form.rstrip("=")) + "(?:=|%3d)*+" for form in _spellings(encoded)]
    forms += [rf"[\w+/-]?{_repeated(form)}[\w+/-]?" for known in _within_base64(octets) for form in _spellings(known)]
    whole = f"(?:{'|'.join(forms)})"
    if len(secret) < _SHORT:
        whole = rf"(?<!\w){whole}(?!\w)"
    patterns = [whole]
    if len(secret) >= 2 * _PART and len(secret.split()) == 1:
        parts = [
            _repeated(text[start : start + _PART])
            for text in (secret.strip(), encoded)
            for start in (*range(0, len(text) - _PART + 1, _PART), len(text) - _PART)
        ]
        patterns.append(rf"(?<!\S)\S*?(?:{'|'.join(parts)})\S*+")
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


def _spellings(encoded: str) -> list[str]:
    """Base64, and its form for URLs and file names, if that is another one (RFC 4648, section 5)."""
    return sorted({encoded, encoded.replace("+", "-").replace("/", "_")})


def _within_base64(octets: bytes) -> Iterator[str]:
    """The characters that these octets alone make in the base64 of a longer text: they can begin at three places."""
    for before in range(3):
        encoded = b64encode(bytes(before) + octets).decode()
        known = encoded[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]
        if len(known) >= _BROKEN:
            yield known


def _repeated(text: str) -> str:
    """A pattern for a text, with each character in any of its forms; it matches in linear time, whatever the input."""
    squeezed = re.sub(r"(\\)\\+|[ \t-\r]+", lambda run: run[1] or " ", text)
    beginning = "" if _plain(squeezed[0]) else r"(?<!\\)(?<![%=+]5c)"  # a run of backslashes is tried once
    between = "\n?" if len(text) >= _BROKEN else ""
    # None beside a blank, whose pattern takes newlines: what can match in two ways takes exponential time.
    words = (between.join(map(_character, word)) for word in squeezed.split(" "))
    return beginning + _character(" ").join(words)


def _character(character: str) -> str:
    """A pattern for a character as it is, escaped with any number of backslashes, or encoded for URLs, HTML or mail."""
    if _plain(character):
        return character
    if character == " ":
        return rf"(?:\n?(?:(?:[%=+](?:20|0[9a-d])|{_BACKSLASH}++[tnrvf])++|\++)\n?|\s++)"
    if character == "\\":
        return f"{_BACKSLASH}++"
    octets = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    forms = {
        character,
        repr(character)[1:-1],
        repr(octets)[2:-1],
        escape(character),
        "".join(rf"\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2)),  # JSON
        "".join(f"%{octet:02x}" for octet in octets),
        octets.decode("latin-1"),
        octets.decode("ascii", "replace"),
    }
    escaped = f"{_BACKSLASH}*+"
    patterns = [escaped.join(map(re.escape, form.split("\\"))) for form in sorted(forms)]
    patterns.append(f"&#0*+(?:{ord(character)}|x0*+{ord(character):x});")  # HTML, with any number of zeros
    patterns.append("".join(f"[=+]{octet:02x}" for octet in octets))  # quoted-printable; xtext (RFC 3461)
    patterns += ["&apos;"] if character == "'" else []
    return f"{escaped}(?:{'|'.join(patterns)})"


def _plain(character: str) -> bool:
    """Whether the character is never escaped."""
    return character.isascii() and character.isalnum()
