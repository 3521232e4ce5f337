"""The sandbox's mail server says to the same dialogues what Postfix and Dovecot say."""

import base64
import contextlib
import re
import socket
import unittest
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from mailer.sandbox.mail import MailServer
from tests.support.realservers import PASSWORD, REFUSED, Dovecot, Postfix, requires

ANN = "ann@example.com"
# Dovecot lets an address wait that has failed to log in.
NO_PENALTY = "service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}"
PLAIN = base64.b64encode(f"\0{ANN}\0{PASSWORD}".encode()).decode()
WRONG = base64.b64encode(f"\0{ANN}\0wrong".encode()).decode()
USER, SECRET = (base64.b64encode(text.encode()).decode() for text in (ANN, PASSWORD))

MAIL, RCPT = f"MAIL FROM:<{ANN}>", "RCPT TO:<bob@example.com>"
# One dialogue a row; every element is sent in one piece, and gets as many replies as it has commands.
SMTP_DIALOGUES = {
    "a mail": ["EHLO c", MAIL, RCPT, "DATA", "Subject: x\r\n\r\n..\r\n.", "QUIT"],
    "an old client": ["HELO c", MAIL, RCPT, "DATA", "\r\nx\r\n.", "QUIT"],
    "two mails with one greeting": ["EHLO c", MAIL, RCPT, "DATA", "x\r\n.", MAIL, RCPT, "DATA", "x\r\n."],
    "words in any case": ["ehlo c", f"mail from:<{ANN}>", "rcpt to:<bob@example.com>", "noop", "rset", "quit"],
    "no greeting name": ["EHLO", "HELO", "EHLO c"],
    "recipient before sender": ["EHLO c", RCPT, "DATA"],
    "data before recipients": ["EHLO c", MAIL, "DATA"],
    "sender twice": ["EHLO c", MAIL, MAIL],
    "reset forgets": ["EHLO c", MAIL, RCPT, "RSET", "DATA", RCPT, MAIL],
    "greeting again forgets": ["EHLO c", MAIL, RCPT, "EHLO c", RCPT],
    "only refused recipients": ["EHLO c", MAIL, f"RCPT TO:<{REFUSED}>", "DATA", MAIL],
    "one of two refused": ["EHLO c", MAIL, RCPT, f"RCPT TO:<{REFUSED}>", "RSET"],
    "sizes": ["EHLO c", f"{MAIL} SIZE=1000", "RSET", f"{MAIL} SIZE=99999999999", f"{MAIL} SIZE=many"],
    "body types": ["EHLO c", f"{MAIL} BODY=8BITMIME", "RSET", f"{MAIL} BODY=7BIT", "RSET", f"{MAIL} BODY=SOUL"],
    "unknown parameters": ["EHLO c", f"{MAIL} COLOUR=RED", MAIL, f"{RCPT} COLOUR=RED"],
    "the null sender": ["EHLO c", "MAIL FROM:<>", RCPT, "RSET"],
    "no recipient": ["EHLO c", MAIL, "RCPT TO:<>"],
    "no path": ["EHLO c", "MAIL", "MAIL FROM:", "MAIL TO:<a@example.com>", MAIL, "RCPT", "RCPT FROM:<a@example.com>"],
    "addresses beyond ASCII": ["EHLO c", "MAIL FROM:<анна@пример.рф>", "MAIL FROM:<анна@пример.рф> SMTPUTF8",
                               "RCPT TO:<боб@пример.рф>", "RSET"],
    "a quoted local part": ["EHLO c", 'MAIL FROM:<"ann > bob"@example.com>', 'RCPT TO:<"b\\"ob"@example.com>'],
    "the postmaster": ["EHLO c", MAIL, "RCPT TO:<postmaster>"],
    "a source route": ["EHLO c", MAIL, "RCPT TO:<@relay.example.com:bob@example.com>"],
    "pipelined": ["EHLO c", f"{MAIL}\r\n{RCPT}\r\nDATA", "x\r\n.\r\nNOOP\r\nQUIT"],
    "pipelined, none taken": ["EHLO c", f"{MAIL}\r\nRCPT TO:<{REFUSED}>\r\nDATA\r\nRSET"],
    "unknown commands": ["EHLO c", "HELP ME NOW OR NEVER", "FETCH", "AUTH PLAIN", "NOOP"],
    "commands with arguments too many": ["EHLO c", MAIL, RCPT, "DATA now", "RSET now", "QUIT"],
    "vrfy": ["EHLO c", "VRFY", f"VRFY {ANN}"],
}  # fmt: skip
AUTH_DIALOGUES = {
    "plain": ["EHLO c", f"AUTH PLAIN {PLAIN}", MAIL, RCPT],
    "plain, in two steps": ["EHLO c", "AUTH PLAIN", PLAIN, MAIL],
    "login": ["EHLO c", "AUTH LOGIN", USER, SECRET, MAIL],
    "login with its name at once": ["EHLO c", f"AUTH LOGIN {USER}", SECRET],
    "in lower case": ["EHLO c", f"auth plain {PLAIN}"],
    "a wrong password": ["EHLO c", f"AUTH PLAIN {WRONG}", f"AUTH PLAIN {PLAIN}"],
    "cancelled": ["EHLO c", "AUTH PLAIN", "*", "AUTH LOGIN", USER, "*"],
    "not base64": ["EHLO c", "AUTH PLAIN $$$", "AUTH PLAIN", "$$$"],
    "twice": ["EHLO c", f"AUTH PLAIN {PLAIN}", f"AUTH PLAIN {PLAIN}"],
    "within a mail": ["EHLO c", f"AUTH PLAIN {PLAIN}", MAIL, f"AUTH PLAIN {PLAIN}"],
    "unknown mechanism": ["EHLO c", "AUTH MAGIC", "AUTH"],
}  # fmt: skip

# Where the sandbox goes by the RFC and Postfix its own way: the piece, what the sandbox answers, what Postfix does.
DELIBERATE = {
    ("MAIL FROM:<анна@пример.рф>", "553"): "501",  # RFC 6531, section 3.5
    ("AUTH PLAIN $$$", "501"): "535",  # RFC 4954, section 4
    ("$$$", "501"): "535",
    ("AUTH MAGIC", "504"): "535",
    ("AUTH PLAIN", "500"): "503",  # where AUTH is not on offer
}


class Line:
    """A connection of which the test says and sees every byte."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._file = self._socket.makefile("rb")

    def send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def line(self) -> str:
        line = self._file.readline(100_000)
        if not line.endswith(b"\r\n"):
            raise AssertionError(f"closed after {line!r}")
        return line[:-2].decode()

    def octets(self, count: int) -> str:
        return self._file.read(count).decode()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def connected(port: int) -> Iterator[Line]:
    line = Line(port)
    try:
        yield line
    finally:
        line.close()


def smtp_codes(port: int, dialogue: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What the server answers to each piece of a dialogue: the reply codes."""
    said = []
    with connected(port) as line:
        smtp_reply(line)
        for piece in dialogue:
            line.send(piece + "\r\n")
            count = len(re.sub(r"^(.*\r\n)?\.(\r\n|$)", "end\r\n", piece, flags=re.DOTALL).rstrip().split("\r\n"))
            said.append((piece, [smtp_reply(line) for _ in range(count)]))
    return said


def smtp_reply(line: Line) -> str:
    while (reply := line.line())[3:4] == "-":
        pass
    return reply[:3]


@requires("postfix", "dovecot")
class SmtpLikePostfixTest(unittest.TestCase):
    def compare(self, sandbox_port: int, postfix_port: int, dialogues: dict[str, list[str]]) -> None:
        for name, dialogue in dialogues.items():
            with self.subTest(name):
                ours = [
                    (piece, [DELIBERATE.get((piece, code), code) for code in codes])
                    for piece, codes in smtp_codes(sandbox_port, dialogue)
                ]
                self.assertEqual(ours, smtp_codes(postfix_port, dialogue))

    def test_mail_without_login(self) -> None:
        def refuse(recipient: str) -> str | None:
            return "550 5.1.1 no such mailbox" if recipient == REFUSED else None

        extensions = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8")
        with (
            Dovecot() as dovecot,
            Postfix(lmtp_port=dovecot.lmtp_port, sasl=None) as postfix,
            MailServer(extensions=extensions, refuse=refuse) as sandbox,
        ):
            self.compare(sandbox.smtp_port, postfix.smtp_port, SMTP_DIALOGUES)

    def test_logging_in(self) -> None:
        with (
            Dovecot(settings=NO_PENALTY) as dovecot,
            Postfix(lmtp_port=dovecot.lmtp_port, sasl=dovecot.sasl_socket) as postfix,
            MailServer(password=PASSWORD) as sandbox,
        ):
            self.compare(sandbox.smtp_port, postfix.smtp_port, AUTH_DIALOGUES)


FIRST = b"Subject: one\r\nFrom: a@example.com\r\n\r\nFirst text\r\n"
SECOND = b"Subject: two\r\n\r\nA line\r\n\r\nanother, " + "кириллица".encode() + b"\r\n"
THIRD = b"Subject: three\r\n\r\n" + b"x" * 5000 + b"\r\n"
LOGIN = f"LOGIN {ANN} {PASSWORD}"
SELECT = [LOGIN, "SELECT INBOX"]
IMAP_DIALOGUES = {
    "select": SELECT,
    "examine": [LOGIN, "EXAMINE inbox"],
    "capability, noop and logout": ["NOOP", "LOGOUT"],
    "a quoted login": [f'LOGIN "{ANN}" "{PASSWORD}"', "CHECK"],
    "a login in literals": [f"LOGIN {{{len(ANN)}}}", f"{ANN} {{{len(PASSWORD)}}}", PASSWORD],
    "a login in literals that do not wait": [f"LOGIN {{{len(ANN)}+}}\r\n{ANN} {{{len(PASSWORD)}+}}\r\n{PASSWORD}"],
    "a wrong login": [f"LOGIN {ANN} wrong", "SELECT INBOX", LOGIN],
    "authenticate": ["AUTHENTICATE PLAIN", PLAIN, "SELECT INBOX"],
    "authenticate at once": [f"AUTHENTICATE PLAIN {PLAIN}", "SELECT INBOX"],
    "authenticate wrongly": ["AUTHENTICATE PLAIN", WRONG, "AUTHENTICATE PLAIN", "*", "AUTHENTICATE MAGIC"],
    "too early": ["SELECT INBOX", "UID FETCH 1 FLAGS", LOGIN, "UID FETCH 1 FLAGS", "CLOSE"],
    "login twice": [LOGIN, LOGIN],
    "no such folder": [LOGIN, "SELECT nothing", "SELECT INBOX", "SELECT nothing", "UID SEARCH ALL"],
    "status": [LOGIN, "STATUS INBOX (MESSAGES UIDNEXT UNSEEN)", "STATUS nothing (MESSAGES)", "STATUS INBOX (AGE)"],
    "list": [LOGIN, 'LIST "" "*"', 'LIST "" INBOX', 'LIST "" inb%', 'LIST "" nothing'],
    "search": [*SELECT, "UID SEARCH ALL", "UID SEARCH UNSEEN", "UID SEARCH SEEN", "UID SEARCH UID 2:*",
               "UID SEARCH UID 9:*", "UID SEARCH UID *:9", "UID SEARCH UID 9:10", "UID SEARCH UID 3,1",
               "UID SEARCH UNSEEN UID 1:2", "UID SEARCH NOT UID 2", "UID SEARCH NOT SEEN", "SEARCH 2:3",
               "UID SEARCH 1:2 UID 2:3", "UID SEARCH DELETED", "UID SEARCH UNDELETED", "UID SEARCH 1:* NOT 2",
               "UID SEARCH CHARSET UTF-8 ALL", "UID SEARCH", "UID SEARCH NONSENSE", "UID SEARCH UID", "SEARCH UID 0"],
    "fetch": [*SELECT, "UID FETCH 1:* (FLAGS)", "UID FETCH 1:* FLAGS", "FETCH 1:2 (UID RFC822.SIZE)",
              "UID FETCH 2 (UID FLAGS RFC822.SIZE)", "UID FETCH 9 (FLAGS)", "UID FETCH 9:* (UID)",
              "UID FETCH 1,3 (UID)", "UID FETCH 2 (BODY.PEEK[])", "UID FETCH 2 BODY.PEEK[HEADER]",
              "UID FETCH 2 (BODY.PEEK[TEXT])", "UID FETCH 3 (BODY.PEEK[]<0.20>)", "UID FETCH 3 (BODY.PEEK[]<20.30>)",
              "UID FETCH 3 (BODY.PEEK[]<5000.3000>)", "UID FETCH 3 (BODY.PEEK[]<9000.10>)",
              "UID FETCH 3 (BODY.PEEK[TEXT]<0.3>)", "UID FETCH 1 (BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
              "UID FETCH 1 (UID BODY.PEEK[HEADER]<0.10> RFC822.SIZE)"],
    "fetch that goes wrong": [*SELECT, "UID FETCH 1", "UID FETCH 1 ()", "UID FETCH 1 (NONSENSE)", "UID FETCH 0 (UID)",
                              "UID FETCH x (UID)", "UID FETCH 1 (UID", "UID FETCH 1:2:3 (UID)", "FETCH 9 (UID)"],
    "reading marks as read": [*SELECT, "UID FETCH 1 (BODY[])", "UID FETCH 2 BODY[TEXT]", "UID SEARCH UNSEEN",
                              "UID FETCH 3 (FLAGS RFC822)", "UID FETCH 1:3 (FLAGS)"],
    "reading in a read-only folder": [LOGIN, "EXAMINE INBOX", "UID FETCH 1 (BODY[])", "UID SEARCH UNSEEN"],
    "store": [*SELECT, "UID STORE 1 +FLAGS (\\Seen)", "UID STORE 1:2 +FLAGS.SILENT (\\Seen \\Flagged)",
              "STORE 3 FLAGS (\\Answered)", "UID STORE 3 +FLAGS \\Seen", "UID STORE 3 -FLAGS (\\Answered)",
              "UID STORE 9 +FLAGS (\\Seen)", "UID STORE 1 FLAGS ()", "UID STORE 1 +FLAGS (\\Nonsense)",
              "UID STORE 1 LABELS (x)", "UID FETCH 1:* (FLAGS)"],
    "no store in a read-only folder": [LOGIN, "EXAMINE INBOX", "UID FETCH 1 (FLAGS)", "UNSELECT", "CHECK"],
    "expunge": [*SELECT, "UID STORE 1,3 +FLAGS.SILENT (\\Deleted)", "EXPUNGE", "UID FETCH 1:* (UID)", "NOOP"],
    "close": [*SELECT, "UID STORE 2 +FLAGS.SILENT (\\Deleted)", "CLOSE", "SELECT INBOX", "UID SEARCH ALL"],
    "unselect": [*SELECT, "UID STORE 2 +FLAGS.SILENT (\\Deleted)", "UNSELECT", "UID SEARCH ALL", "SELECT INBOX"],
    "nonsense": ["NONSENSE", "UID NONSENSE", LOGIN, "UID", 'SELECT "INBOX'],
}  # fmt: skip


def imap_answers(port: int, dialogue: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What the server answers to each piece of a dialogue, without its own words and extras."""
    said = []
    with connected(port) as line:
        line.line()
        ended = True
        for number, piece in enumerate(dialogue):
            line.send((f"a{number} " if ended else "") + piece + "\r\n")
            answers: list[str] = []
            while not answers or not re.match(r"a\d+ |\+", answers[-1]):
                answers.append(imap_line(line))
            ended = not answers[-1].startswith("+")
            said.append((piece, sorted(filter(None, (essence(answer) for answer in answers)))))
    return said


def imap_line(line: Line) -> str:
    answer = line.line()
    while literal := re.search(r"\{(\d+)\}$", answer):
        answer += "\r\n" + line.octets(int(literal[1])) + line.line()
    return answer


def essence(answer: str) -> str:
    """An answer without what servers are free to choose: words, extra response codes, the order of flags, \\Recent."""
    if answer.startswith("+"):
        return "+"
    answer = re.sub(r"^a\d+ ", "a ", answer)
    if re.match(r"\* (CAPABILITY|OK \[(HIGHESTMODSEQ|CLOSED|UIDVALIDITY)|\d+ RECENT|OK Still here|BYE)", answer):
        return ""
    if state := re.match(r"(a|\*) (OK|NO|BAD)( \[(READ-ONLY|READ-WRITE|UNSEEN \d+|UIDNEXT \d+)\])?", answer):
        return state[0]
    if answer.startswith("* LIST"):
        return '* LIST "INBOX"'
    answer = answer.replace('STATUS "INBOX"', "STATUS INBOX")
    return re.sub(
        r"FLAGS \(([^)]*)\)",
        lambda flags: "FLAGS " + str(sorted(set(flags[1].split()) - {"\\Recent"})),
        answer,
    )


@requires("postfix", "dovecot")
class ImapLikeDovecotTest(unittest.TestCase):
    def test_dialogues(self) -> None:
        with Dovecot(settings=NO_PENALTY) as dovecot:
            for number, (name, dialogue) in enumerate(IMAP_DIALOGUES.items()):
                address = f"ann{number}@example.com"
                with self.subTest(name), MailServer(password=PASSWORD) as sandbox:
                    dovecot.deliver(address, FIRST, SECOND, THIRD)
                    for raw in dovecot.messages(address):
                        sandbox.deliver(address, raw, received=datetime.now(UTC))
                    pieces = [self.address(piece, address) for piece in dialogue]
                    self.assertEqual(
                        imap_answers(sandbox.imap_port, pieces), imap_answers(dovecot.imap_port, pieces)
                    )

    def address(self, piece: str, address: str) -> str:
        """The piece of a dialogue about this address instead of Ann's."""
        for secret in (PASSWORD, "wrong"):
            old, new = (base64.b64encode(f"\0{who}\0{secret}".encode()).decode() for who in (ANN, address))
            piece = piece.replace(old, new)
        return piece.replace(ANN, address).replace(f"{{{len(ANN)}", f"{{{len(address)}")


if __name__ == "__main__":
    unittest.main()
