"""The parameters of Content-Type and Content-Disposition fields (RFC 2045, section 5.1; RFC 2231), however damaged.

Promises an answer for any value, in linear time. Called by `mime` and `imap.parts`.
"""

import itertools
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from mailer.reading import charsets, headers

# Shorter values are cached: most mails have the same few.
_SHORT = 200
# A long file name is split into a few dozen parameters; parameters beyond this number are ignored.
_MOST = 200

_PARAMETER = re.compile(
    rb"(?<![A-Za-z0-9_.*-])([A-Za-z0-9_.*-]++)[ \t]*+=[ \t]*+(?:\"((?:[^\"\\]|\\.)*+)\"?|([^;\"\n]*))", re.DOTALL
)
_SECTION = re.compile(r"(.+?)\*(?:([0-9]{1,4})(\*)?)?")


def parse(value: bytes) -> tuple[str, Mapping[str, str]]:
    """The main value in lower case, and its parameters (names in lower case) with continuations joined."""
    return _remembered(value) if len(value) < _SHORT else _parameters(value)


def _parameters(value: bytes) -> tuple[str, Mapping[str, str]]:
    if not value:
        return "", {}
    main, _, rest = value.partition(b";")
    if b"=" in main:  # the semicolon after the main value was left out
        main, _, tail = main.partition(b" ")
        rest = tail + b";" + rest
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for found in itertools.islice(_PARAMETER.finditer(rest), _MOST):
        name, quoted, bare = found.groups(b"")
        key = name.decode("ascii").lower()
        if bare and not key.partition("*")[0].endswith("name"):
            bare = bare.partition(b"(")[0]  # a comment
        data = re.sub(rb"\\(.)", rb"\1", quoted) if b"\\" in quoted else quoted or bare.strip()
        section = _SECTION.fullmatch(key) if "*" in key else None
        if section:
            sections.setdefault(section[1], {}).setdefault(int(section[2] or 0), (data, key.endswith("*")))
        else:
            plain.setdefault(key, headers.decode(data) if key.endswith("name") else charsets.decode(data, None))
    for key, numbered in sections.items():
        plain[key] = _join_sections([numbered[number] for number in sorted(numbered)])
    return main.split(b"(")[0].strip().decode("ascii", "replace").lower(), plain


_remembered = lru_cache(maxsize=512)(_parameters)


def _join_sections(sections: list[tuple[bytes, bool]]) -> str:
    """Join the sections of one parameter (RFC 2231): charset'language'percent-encoded bytes, or plain ones."""
    charset = None
    if sections[0][1] and sections[0][0].count(b"'") >= 2:
        name, _, value = sections[0][0].split(b"'", 2)
        charset = name.decode("ascii", "replace")
        sections = [(value, True), *sections[1:]]
    if not any(encoded for _, encoded in sections):
        return headers.decode(b"".join(value for value, _ in sections))  # of encoded words, as some programs write it
    data = b"".join(unquote_to_bytes(value) if encoded else value for value, encoded in sections)
    return headers.one_line(charsets.decode(data, charset))
