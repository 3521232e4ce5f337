"""Mail of all sorts, always the same, and INBOXes of it in Dovecot's store.

Of a hundred mails 65 are ticket mails (30 of the server's copies, 20 replies with quoted history, 15 with HTML), 15 are
letters and newsletters, 10 automatic replies, 10 bounces; three of them carry an attachment of 200 KB.
"""

import base64
import os
import quopri
import random
import shutil

from tests.support.realservers import Dovecot

_ATTACHMENT = 150_000  # bytes, which base64 makes 200 KB of
_LATIN = (
    "the printer on third floor does not answer again since this morning we have tried to switch it off and on "
    "please look at it when you can the invoice from March is missing two pages and nobody in the office knows why"
)
_CYRILLIC = (
    "принтер на третьем этаже снова не отвечает с самого утра мы пробовали выключить и включить его посмотрите "
    "пожалуйста когда сможете в счёте за март не хватает двух страниц и никто не знает почему"
)


def mails(count: int, seed: int = 7) -> list[bytes]:
    """So many mails, as they lie in a store."""
    chance = random.Random(seed)
    attachments = [_wrapped(chance.randbytes(_ATTACHMENT)) for _ in range(5)]
    return [_mail(number, chance, attachments) for number in range(count)]


def _mail(number: int, chance: random.Random, attachments: list[str]) -> bytes:
    kind = chance.randrange(100)
    cyrillic = chance.random() < 0.5
    text = _text(chance, cyrillic, chance.choice((30, 80, 200, 600)))
    subject = f"[Ticket #{10000 + number}] Mailer"
    extra = ""
    if kind < 30:
        headers, body = _encoded(text, "base64")
        extra = "Auto-Submitted: auto-generated\n"
    elif kind < 50:
        headers, body = _encoded(text + _quoted(chance, cyrillic), chance.choice(("8bit", "quoted-printable")))
        subject = f"Re: {subject}" if chance.random() < 0.7 else _word(f"Ответ: {subject}")
    elif kind < 65:
        headers, body = _alternative(text, with_plain=chance.random() < 0.8)
        subject = f"RE: {subject}"
    elif kind < 80:
        headers, body = _alternative(f"{text}\n{text}", with_plain=chance.random() < 0.5)
        subject = _word(_text(chance, cyrillic, 6))
    elif kind < 90:
        headers, body = _encoded(text, "quoted-printable")
        subject, extra = "Automatic reply: away", "Auto-Submitted: auto-replied\nPrecedence: bulk\n"
    else:
        headers, body = _bounce(number)
        subject, extra = "Undelivered Mail Returned to Sender", "Auto-Submitted: auto-replied\n"
    if chance.random() < 0.03:
        headers, body = _with_attachment(headers, body, chance.choice(attachments))
    sender = f"person{chance.randrange(5000)}@example.net"
    return (
        f"Return-Path: <{sender}>\n{_received(chance)}From: {_word('Вера Павлова') if cyrillic else 'Vera Pavlova'} "
        f"<{sender}>\n"
        f"To: helpdesk@example.com\nSubject: {subject}\nDate: Mon, 23 Nov 2026 10:{number % 60:02}:00 +0100\n"
        f"Message-ID: <{number}.{chance.getrandbits(64):x}@example.net>\n"
        f"References: <ticket.{10000 + number}.ab12@example.com>\n"
        f"X-Mailer: Example Mail 4.2\nMIME-Version: 1.0\n{extra}{headers}\n{body}"
    ).encode()


def _received(chance: random.Random) -> str:
    hops = (
        f"Received: from mx{hop}.example.net (mx{hop}.example.net [192.0.2.{chance.randrange(255)}])\n"
        f"\tby mail.example.com (Postfix) with ESMTPS id {chance.getrandbits(40):X}\n"
        "\tfor <helpdesk@example.com>; Mon, 23 Nov 2026 10:15:03 +0100 (CET)\n"
        for hop in range(chance.randrange(2, 6))
    )
    signature = _wrapped(chance.randbytes(256)).replace("\n", "\n\t").rstrip()
    fields = "v=1; a=rsa-sha256; d=example.net; s=mail; h=From:To:Subject;"
    return "".join(hops) + f"DKIM-Signature: {fields}\n\tb={signature}\n"


def _text(chance: random.Random, cyrillic: bool, words: int) -> str:
    vocabulary = (_CYRILLIC if cyrillic else _LATIN).split(" ")
    return "\n".join(" ".join(chance.choices(vocabulary, k=12)) for _ in range(max(1, words // 12)))


def _quoted(chance: random.Random, cyrillic: bool) -> str:
    return "\n\n" + "\n".join(f"> {line}" for line in _text(chance, cyrillic, 120).splitlines())


def _encoded(text: str, encoding: str, kind: str = "plain") -> tuple[str, str]:
    headers = f"Content-Type: text/{kind}; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n"
    if encoding == "base64":
        text = _wrapped(text.encode())
    elif encoding == "quoted-printable":
        text = quopri.encodestring(text.encode()).decode()
    return headers, text + "\n"


def _alternative(text: str, with_plain: bool) -> tuple[str, str]:
    paragraphs = "".join(f'<p style="margin: 0 0 1em 0">{line}</p>\n' for line in text.splitlines())
    style = "".join(f".c{number} {{ font: 12px/1.5 sans-serif; color: #{number:06x} }}\n" for number in range(40))
    html = f"<html><head><style>{style}</style></head><body><table><tr><td>{paragraphs}</td></tr></table></body></html>"
    parts = [_encoded(text, "8bit")] if with_plain else []
    parts.append(_encoded(html, "quoted-printable", "html"))
    body = "".join(f"--=_alternative\n{headers}\n{content}\n" for headers, content in parts)
    return 'Content-Type: multipart/alternative; boundary="=_alternative"\n', f"{body}--=_alternative--\n"


def _bounce(number: int) -> tuple[str, str]:
    notice = "This is the mail system at host mail.example.net.\n\nYour message could not be delivered.\n"
    ticket = 10000 + number
    original = (
        f"From: helpdesk@example.com\nSubject: [Ticket #{ticket}] Mailer\n"
        f"Message-ID: <ticket.{ticket}.ab12@example.com>\n"
    )
    return (
        'Content-Type: multipart/report; report-type=delivery-status; boundary="=_report"\n',
        f"--=_report\nContent-Type: text/plain\n\n{notice}\n--=_report\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mail.example.net\n\n"
        "Final-Recipient: rfc822; nobody@example.net\nAction: failed\nStatus: 5.1.1\n\n"
        f"--=_report\nContent-Type: text/rfc822-headers\n\n{original}\n--=_report--\n",
    )


def _with_attachment(headers: str, body: str, attachment: str) -> tuple[str, str]:
    return (
        'Content-Type: multipart/mixed; boundary="=_mixed"\n',
        f"--=_mixed\n{headers}\n{body}\n--=_mixed\nContent-Type: image/jpeg\nContent-Transfer-Encoding: base64\n"
        f'Content-Disposition: attachment; filename="picture.jpg"\n\n{attachment}--=_mixed--\n',
    )


def _word(text: str) -> str:
    return f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?="


def _wrapped(data: bytes) -> str:
    return base64.encodebytes(data).decode()


class Store:
    """Mails on disk, to be put into one INBOX after the other as links."""

    def __init__(self, dovecot: Dovecot, contents: list[bytes]) -> None:
        self._dovecot = dovecot
        self._folder = dovecot.folder / "mail" / "templates"
        self._folder.mkdir(exist_ok=True)
        self._names = []
        for number, content in enumerate(contents):
            sizes = f"S={len(content)},W={len(content) + content.count(10)}"
            name = f"{1_700_000_000 + number}.M{number}P1.mail,{sizes}"
            (self._folder / name).write_bytes(content)
            self._names.append(name)

    def fill(self, address: str, count: int, *, seen: bool = False) -> None:
        """An INBOX with so many mails, known to the server; the mails come round again when there are too few."""
        maildir = self._dovecot.maildir(address)
        for part in ("new", "cur", "tmp"):
            (maildir / part).mkdir(parents=True)
        for number in range(count):
            again, index = divmod(number, len(self._names))
            name = self._names[index].replace(".", f".{again}", 1)
            place = f"cur/{name}:2,S" if seen else f"new/{name}"
            os.link(self._folder / self._names[index], maildir / place)
        for path in (maildir.parent, maildir, *(maildir / part for part in ("new", "cur", "tmp"))):
            shutil.chown(path, "nobody", "nogroup")
        with self._dovecot.login(address) as session:
            session.noop()

    def empty(self, address: str) -> None:
        """Take the INBOX away."""
        shutil.rmtree(self._dovecot.maildir(address).parent)
