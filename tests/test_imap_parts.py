"""Large mails: what comes after an attachment is told, and the attachment is not fetched."""

import base64
import functools
import itertools
import re
import unittest
from collections.abc import Callable

from mailer.errors import MailboxError
from mailer.imap import Mailbox
from mailer.reading import Reading, read, wants_more
from tests.support.mails import multipart
from tests.support.scripted import Conversation, ScriptedServer, close
from tests.test_imap import IMAP, ImapCase

HEAD = b"From: a@example.com\r\nSubject: [Ticket #1] Mailer\r\nMIME-Version: 1.0\r\n"


def text(words: str, kind: str = "plain") -> bytes:
    return f"Content-Type: text/{kind}; charset=utf-8\r\n\r\n{words}".encode()


def file(name: str, size: int = 200_000) -> bytes:
    """An attachment; the size is that of its encoded content."""
    fields = f'Content-Type: image/jpeg; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    data = base64.encodebytes(bytes(3 * size // 4)).replace(b"\n", b"\r\n")
    return fields.encode() + b"Content-Transfer-Encoding: base64\r\n\r\n" + data


FORWARDED = b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n"

# Each with the most KB that reading it may cost.
MAILS = {
    "three photos": (HEAD + multipart("mixed", "b", text("look"), file("1.jpg"), file("2.jpg"), file("3.jpg")), 80),
    "a text behind": (HEAD + multipart("mixed", "b", text("one"), file("big", 2_000_000), text("two")), 80),
    "an attachment first": (HEAD + multipart("mixed", "b", file("big", 2_000_000), text("the text")), 80),
    "an empty part": (HEAD + multipart("mixed", "b", file("big"), b"", text("two"), file("b")), 80),
    "a doubled boundary": (HEAD + multipart("mixed", "b", file("big"), b"--b", text("two"), file("b")), 80),
    "empty parts": (HEAD + multipart("mixed", "b", file("big"), b"", b"", b"", b"", text("two"), file("b")), 80),
    "an empty part asked for last": (HEAD + multipart(
        "mixed", "b", file("big"), *[file(f"{n}", 99) for n in range(6)], b"", text("two"), file("b")), 80),
    "long text behind": (HEAD + multipart("mixed", "b", file("big"), text("слово " * 40_000), file("b")), 550),
    "no field in a part": (HEAD + multipart("mixed", "b", file("big"), b"\r\nno fields: none", file("b")), 80),
    "a text of no kind": (HEAD + multipart("mixed", "b", b"Content-Type: text\r\n\r\n" + b"words " * 40_000,
        file("b")), 550),
    "a text of no kind behind": (HEAD + multipart("mixed", "b", text("one"), file("big"),
        b"Content-Type: text; charset=utf-8\r\n\r\ntwo", file("b")), 80),
    "twenty photos": (HEAD + multipart("mixed", "b", *(file(f"{n}.jpg", 70_000) for n in range(20))), 80),
    "a version of the text behind": (HEAD + multipart("mixed", "b", file("a"), multipart(
        "alternative", "c", text("plain"), text("<p>" + "html " * 50_000, "html")), file("z")), 140),
    "pictures in HTML, and files": (HEAD + multipart("mixed", "b", multipart(
        "related", "c", text("<p>html", "html"), file("1.png"), file("2.png")), file("1.pdf"), file("2.pdf")), 80),
    "a forwarded mail": (HEAD + multipart("mixed", "b", text("see"), FORWARDED + multipart(
        "mixed", "c", text("inside"), file("1.png"), file("2.png")), file("z")), 80),
    "a mixture behind": (HEAD + multipart("mixed", "b", text("one"), file("a"), multipart(
        "mixed", "c", text("two"), file("b"), text("three")), text("four")), 300),
    "a forwarded mail behind": (HEAD + multipart("mixed", "b", text("one"), file("a"), FORWARDED + multipart(
        "mixed", "c", text("two"), file("b"), text("three"))), 300),
    "a forwarded mail in a forwarded mail": (HEAD + multipart("mixed", "b", text("one"), FORWARDED + FORWARDED +
        multipart("mixed", "c", file("a"), text("two")), text("three")), 150),
    "an attachment as a version of the text": (HEAD + multipart("mixed", "b", text("one"), multipart(
        "alternative", "c", file("a"), text("two")), text("three")), 150),
    "two attachments in a mixture behind": (HEAD + multipart("mixed", "b", text("one"), file("a"), multipart(
        "mixed", "c", file("small", 100), text("two"), file("b"), text("three")), text("four")), 300),
    "an empty version of the text": (HEAD + multipart("mixed", "b", multipart(
        "alternative", "c", text("\r\n\xa0"), file("logo"), text("<p>words", "html")), file("z")), 80),
    "attachments among the versions": (HEAD + multipart(
        "alternative", "b", text("plain"), text("<p>html", "html"), file("1.pdf"), file("2.pdf")), 80),
    "an invitation behind long HTML": (HEAD + multipart("alternative", "b", text("plain"),
        text("<p>" + "html " * 50_000, "html"), b'Content-Type: text/calendar; name="meeting.ics"\r\n\r\nBEGIN:'), 80),
    "versions behind long HTML": (HEAD + multipart("alternative", "b", text("plain"),
        text("<p>" + "html " * 50_000, "html"), text("another"), text("more", "enriched"), file("1.pdf")), 80),
    "cut in an alternative": (HEAD + multipart("mixed", "b", multipart(
        "alternative", "c", text("plain"), text("<p>" + "html " * 50_000, "html")), file("z")), 80),
}  # fmt: skip


class Answers:
    """Answers FETCH commands about one mail, part numbers and all, as RFC 3501 has it."""

    def __init__(self, raw: bytes, *, parts: bool = True, nil: bytes | None = None) -> None:
        self.raw, self.parts, self.nil = raw, parts, nil  # `nil`: how it says that there is nothing
        self.commands: list[bytes] = []
        self.sent = 0

    def __call__(self, conversation: Conversation) -> None:
        line = conversation.lines[-1]
        self.commands.append(line)
        if not self.parts and b"MIME" in line:
            return conversation.send(b"%tag% BAD what is that\r\n")
        answer = b"* 1 FETCH (UID 9"
        for section, start, length in re.findall(rb"BODY\.PEEK\[([^]]*)\]<(\d+)\.(\d+)>", line):
            data = self.section(section.decode())[int(start) :][: int(length)]
            nothing = self.nil is not None and not data
            told = self.nil if nothing else b"<%d> {%d}\r\n%s" % (int(start), len(data), data)
            answer += b" BODY[%s]%s" % (section, told)
        self.sent += len(answer)
        return conversation.send(answer + b")\r\n%tag% OK done\r\n")

    def section(self, name: str) -> bytes:
        part = self.raw
        for number in re.findall(r"\d+", name):
            part = self.child(part, int(number))
        header, _, body = part.partition(b"\r\n\r\n") if not part.startswith(b"\r\n") else (b"", b"", part[2:])
        if not name:
            return part
        return (header + b"\r\n\r\n" if header else part[:2]) if name.endswith("MIME") else body

    @staticmethod
    def child(part: bytes, number: int) -> bytes:
        children = _children(part)
        return children[number - 1] if number <= len(children) else b""


@functools.lru_cache
def _children(part: bytes) -> list[bytes]:
    header, _, body = part.partition(b"\r\n\r\n")
    if b"message/rfc822" in header:
        inner = body
        header, _, body = inner.partition(b"\r\n\r\n")
        if b"multipart/" not in header:
            return [inner]
    boundary = re.search(rb'boundary="(\w+)"', header)
    return re.split(rb"(?:\r\n|^)--" + boundary[1] + rb"(?:--)?\r\n", body)[1:-1] if boundary else []


class LargeMails(ImapCase):
    def fetched(self, answers: Callable[[Conversation], None]) -> Reading:
        with ScriptedServer({**IMAP, "UID FETCH": answers}, imap=True) as server:
            return self.read(self.opened(server.port))

    def read(self, box: Mailbox) -> Reading:
        (mail,) = box.fetch([9], wants_more)
        return read(mail.raw or b"", complete=mail.complete)

    def test_everything_is_told_and_little_fetched(self) -> None:
        for name, (raw, kilobytes) in MAILS.items():
            with self.subTest(name):
                answers = Answers(raw)
                self.assertEqual(self.fetched(answers), read(raw))
                self.assertLess(answers.sent, 1000 * kilobytes)

    def test_a_server_that_says_nil_of_what_there_is_not_is_understood(self) -> None:
        for count, nil in itertools.product(range(5, 26), (b" NIL", b"<0> NIL")):
            raw = HEAD + multipart("mixed", "b", file("big"), *(text(f"part {number}") for number in range(2, count)))
            with self.subTest(count, nil=nil):
                answers = Answers(raw, nil=nil)
                self.assertEqual(self.fetched(answers), read(raw))
                self.assertLess(answers.sent, 80_000)

    def test_an_empty_text_part_that_is_nil_does_not_end_a_mail(self) -> None:
        raw = HEAD + multipart("mixed", "b", file("big"), text(""), text("two"))
        for nil in (b" NIL", b"<0> NIL"):
            with self.subTest(nil):
                answers = Answers(raw, nil=nil)
                self.assertEqual(self.fetched(answers), read(raw))
                self.assertLess(answers.sent, 80_000)

    def test_an_answer_without_the_parts_is_a_refusal_for_now(self) -> None:
        answers = Answers(HEAD + multipart("mixed", "b", text("one"), file("big", 6_000_000), text("two")))

        def flags_only(conversation: Conversation) -> None:
            if b"MIME" in conversation.lines[-1]:
                return conversation.send(b"* 1 FETCH (UID 9 FLAGS (\\Seen))\r\n%tag% OK done\r\n")
            return answers(conversation)

        with ScriptedServer({**IMAP, "UID FETCH": flags_only}, imap=True) as server:
            (mail,) = self.opened(server.port).fetch([9], wants_more)
        self.assertTrue(mail.refused, "asked for again")

    def test_a_mail_costs_a_command_more_only_where_something_can_follow(self) -> None:
        table = {
            "small": (HEAD + multipart("mixed", "b", text("a"), file("1", 1000)), 1),
            "one attachment": (MAILS["three photos"][0], 2),
            "nothing but an image": (HEAD + file("1", 2_000_000), 1),
            "an alternative": (HEAD + multipart("alternative", "b", text("a"), text("<p>" * 50_000, "html")), 2),
            "a long text": (HEAD + text("word " * 40_000), 2),
        }
        for name, (raw, commands) in table.items():
            with self.subTest(name):
                answers = Answers(raw)
                self.fetched(answers)
                self.assertEqual(len(answers.commands), commands)

    def test_names_that_a_server_does_not_give_make_no_text_go_missing(self) -> None:
        long = text("<p>" + "html " * 1_200_000, "html")
        answers = Answers(HEAD + multipart("alternative", "b", text("plain"), long), parts=False)
        with ScriptedServer({**IMAP, "UID FETCH": answers}, imap=True) as server:
            (mail,) = self.opened(server.port).fetch([9], wants_more)
        self.assertEqual((mail.refused, mail.cut), (False, False))

    def test_a_text_that_is_cut_off_is_truncated_wherever_it_stands(self) -> None:
        emoji = b"Content-Transfer-Encoding: quoted-printable\r\n" + text("=F0=9F=98=80" * 480_000)
        html = text("<p>html", "html")
        for name, raw in (
            ("alternative", multipart("alternative", "b", html, emoji)),
            ("alternative and file", multipart("alternative", "b", html, emoji, file("1.pdf"))),
            ("mixed", multipart("mixed", "b", emoji, file("1.pdf"))),
        ):
            with self.subTest(name):
                self.assertTrue(self.fetched(Answers(HEAD + raw)).truncated)

    def test_from_a_server_that_gives_no_parts_the_whole_mail_is_taken(self) -> None:
        for name, (raw, _) in MAILS.items():
            with self.subTest(name):
                answers = Answers(raw, parts=False)
                self.assertEqual(self.fetched(answers), read(raw))
                self.assertLessEqual(sum(b"MIME" in line for line in answers.commands), 1)

    def test_a_server_that_counts_the_parts_in_another_way_is_not_believed(self) -> None:
        raw, _ = MAILS["three photos"]
        answers = Answers(raw)
        answers.section = lambda name: Answers.section(answers, name.replace("2.MIME", "3.MIME"))  # type: ignore[method-assign]
        self.assertEqual(self.fetched(answers), read(raw))

    def test_what_was_given_before_the_connection_broke_is_handed_on(self) -> None:
        raw, _ = MAILS["three photos"]
        answers = Answers(raw)
        first = {**IMAP, "UID FETCH": lambda talk: close(talk) if answers.commands else answers(talk)}
        with ScriptedServer(first, imap=True) as server:
            mails = self.opened(server.port).fetch([9], wants_more)
            given = next(mails)
            self.assertEqual((given.uid, given.refused, read(given.raw or b"").text), (9, True, "look"))
            self.assertRaises(MailboxError, next, mails)

    def test_what_is_refused_once_is_never_taken_for_the_end(self) -> None:
        refusals = (b"%tag% NO [SERVERBUG] not now\r\n", b"%tag% BAD not now\r\n", b"%tag% OK here is nothing\r\n")
        for name, (raw, _) in MAILS.items():
            answers = Answers(raw)
            self.fetched(answers)
            for at in range(1, len(answers.commands)):
                for refusal in refusals:
                    with self.subTest(name, at=at, refusal=refusal):
                        self.assertIn(self.refused_at(at, refusal, raw), (None, read(raw)))

    def refused_at(self, at: int, refusal: bytes, raw: bytes) -> Reading | None:
        """What a mail says one of whose commands is refused; None when it is to be asked for again."""
        answers = Answers(raw)

        def answer(conversation: Conversation) -> None:
            if len(answers.commands) != at:
                return answers(conversation)
            answers.commands.append(b"")
            return conversation.send(refusal)

        with ScriptedServer({**IMAP, "UID FETCH": answer}, imap=True) as server:
            (mail,) = self.opened(server.port).fetch([9], wants_more)
        return None if mail.refused else read(mail.raw or b"", complete=mail.complete)

    def test_hundreds_of_small_attachments_take_few_commands(self) -> None:
        files = [file(f"{number}.bin", 10_000) for number in range(900)]
        raw = HEAD + multipart("mixed", "b", text("look"), *files, text("and bye"))
        answers = Answers(raw)
        found = self.fetched(answers)
        self.assertEqual(found, read(raw))
        self.assertEqual((len(found.attachments), found.text, found.truncated), (900, "look\nand bye", False))
        self.assertLess(len(answers.commands), 25)

    def test_parts_are_bounded(self) -> None:
        raw = HEAD + multipart("mixed", "b", file("big"), *[text("x" * 100)] * 500)
        answers = Answers(raw)
        self.assertEqual(self.fetched(answers).text.count("\n"), 499)
        self.assertLess(len(answers.commands), 270, "with too many of them, all of the mail is asked for")
        raw = HEAD + multipart("mixed", "b", file("big"), *[text("x")] * 1500)
        self.assertEqual(self.fetched(Answers(raw)).defects, ("parts",))


if __name__ == "__main__":
    unittest.main()
