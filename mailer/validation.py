"""The rules for an address and a message, the same at the client (to complain before sending) and at the server.

An address is a mailbox that mail can reach over the Internet: a dot-string and a domain name with a dot in it. Quoted
local parts, comments, address literals and display names are refused on purpose: people do not type them, attackers do.
"""

import re
import unicodedata

from mailer.errors import Code, Problem, RequestError

MAX_MESSAGE = 100_000  # characters
MAX_ADDRESS = 254  # octets: a forward-path of 256 (RFC 5321, section 4.5.3.1.3) less its angle brackets
MAX_LOCAL_PART = 64  # octets (RFC 5321, section 4.5.3.1.1)
MAX_DOMAIN = 253  # octets: what 255 octets of a DNS name can spell (RFC 1035, section 2.3.4)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010FFFF-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?=[A-Za-z0-9-]*[A-Za-z]){_LABEL}")
# The usual kind of address, accepted in one match, without Unicode and copies.
_ASCII_ADDRESS = re.compile(
    rf"(?=.{{3,{MAX_ADDRESS}}}\Z)(?=[^@]{{1,{MAX_LOCAL_PART}}}@)"
    rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+)*@{_DOMAIN.pattern}",
    re.ASCII,
)
# The standard library's IDNA 2003 turns these letters into others; IDNA 2008 (RFC 5891) keeps them.
_KEPT_BY_IDNA_2008 = re.compile("[\u00df\u03c2]")
_LABEL_SEPARATORS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490, section 3.1

# What people paste with an address, and what separates two addresses.
_MORE_THAN_AN_ADDRESS = re.compile(r"[<>(),;]|\Amailto:", re.IGNORECASE)
_WRONG_LOCAL_PART = "The part before the @ is empty or holds something that an address cannot have."
# An address can hold no encoded word (RFC 2047), but some mail software decodes one, which makes it another address.
_ENCODED_WORD = re.compile(r"=\?[^?]+\?[bq]\?", re.IGNORECASE)

# C0 but newline and tab, DEL, C1, and surrogates, which UTF-8 cannot encode; some stand for bytes (PEP 383).
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNDECODED = re.compile("[\udc80-\udcff]")


def check(email: str, message: str) -> tuple[str, str]:
    """The address and the text to send; raises RequestError with the problems of both together."""
    problems: list[Problem] = []
    address = text = ""
    try:
        address = check_email(email)
    except RequestError as wrong:
        problems += wrong.problems
    try:
        text = check_message(message)
    except RequestError as wrong:
        problems += wrong.problems
    if problems:
        raise RequestError(*problems)
    return address, text


def check_email(email: str) -> str:
    """The address as it goes on the wire, its domain in ASCII; raises RequestError (`email_invalid`)."""
    if _ASCII_ADDRESS.fullmatch(email) and "--" not in email and "=?" not in email:
        return email
    local_part, at, domain = email.rpartition("@")
    if not at:
        raise _invalid("An e-mail address has the form name@example.com.")
    if _MORE_THAN_AN_ADDRESS.search(email):
        raise _invalid("Give one address and nothing else, such as name@example.com.")
    if "@" in local_part:
        raise _invalid("An e-mail address has one @ and no more.")
    _check_local_part(local_part)
    address = f"{local_part}@{_ascii_domain(domain)}"
    if len(address.encode()) > MAX_ADDRESS:
        raise _invalid(f"The address is longer than {MAX_ADDRESS} bytes.")
    return address


def check_message(message: str) -> str:
    """The text with newlines for CRLF and CR; raises RequestError (`message_empty`, `_too_long`, `_invalid`)."""
    if "\r" in message:
        message = message.replace("\r\n", "\n").replace("\r", "\n")
    problems: list[Problem] = []
    if not message or message.isspace():
        problems.append(Problem(Code.MESSAGE_EMPTY, "The message is empty."))
    elif len(message) > MAX_MESSAGE:
        text = f"The message has {len(message):,} characters; at most {MAX_MESSAGE:,} can be sent."
        problems.append(Problem(Code.MESSAGE_TOO_LONG, text))
    if found := _FORBIDDEN.search(message):
        line = message.count("\n", 0, found.start()) + 1
        text = f"The message holds a character that cannot be sent, U+{ord(found[0]):04X}, on line {line}."
        if _UNDECODED.match(found[0]):
            text = f"The message holds bytes that are not UTF-8, on line {line}."
        problems.append(Problem(Code.MESSAGE_INVALID, text))
    if problems:
        raise RequestError(*problems)
    return message


def _check_local_part(local_part: str) -> None:
    too_long = _invalid(f"The part before the @ is longer than {MAX_LOCAL_PART} bytes.")
    if len(local_part) > 2 * MAX_LOCAL_PART:  # before the slower checks, whatever else is wrong
        raise too_long
    wrong = not _DOT_STRING.fullmatch(local_part) or _ENCODED_WORD.search(local_part)
    if wrong or not all(map(_visible, local_part)):
        raise _invalid(_WRONG_LOCAL_PART)
    if len(local_part.encode()) > MAX_LOCAL_PART:
        raise too_long
    # Mail software may normalise wide forms of characters (RFC 8264): the result has to be a local part, too.
    if not local_part.isascii() and not _DOT_STRING.fullmatch(unicodedata.normalize("NFKC", local_part)):
        raise _invalid(_WRONG_LOCAL_PART)


def _visible(character: str) -> bool:
    return character.isascii() or unicodedata.category(character)[0] in "LMNPS"


def _ascii_domain(domain: str) -> str:
    wrong = _invalid("The part after the @ is not a domain name such as example.com.")
    if len(domain) > MAX_DOMAIN:  # before the IDNA codec, which takes quadratic time
        raise wrong
    try:
        ascii_domain = domain
        if not domain.isascii():
            labels = _LABEL_SEPARATORS.split(domain)
            if labels[-1].isdecimal():  # a number in any script
                raise wrong
            ascii_domain = ".".join(map(_ascii_label, labels))
        for label in ascii_domain.lower().split("."):
            if label.startswith("xn--"):
                label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        raise wrong from None
    if len(ascii_domain) > MAX_DOMAIN or not _DOMAIN.fullmatch(ascii_domain):
        raise wrong
    return ascii_domain


def _ascii_label(label: str) -> str:
    """The A-label (RFC 5890, section 2.3.2.1) of one label; raises UnicodeError."""
    label = unicodedata.normalize("NFKC", label)
    label = label if label.isascii() else label.lower()  # so that a capital ß is kept, too
    if "." in label or label != label.strip("-"):  # NFKC may have made a dot of another character
        raise UnicodeError("not one label")
    ascii_label = label.encode("idna").decode("ascii")
    if _KEPT_BY_IDNA_2008.search(label):
        return "xn--" + label.lower().encode("punycode").decode("ascii")
    return ascii_label


def _invalid(text: str) -> RequestError:
    return RequestError(Problem(Code.EMAIL_INVALID, text))
