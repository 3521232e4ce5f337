"""Every stage of a delivery fails in every way: the right outcome, nothing half sent, nothing twice, life goes on."""

import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.support.outboxes import OutboxTestCase, letter, result
from tests.support.scripted import (
    CAPABILITIES,
    SMTP,
    Action,
    ScriptedServer,
    Table,
    bytewise,
    close,
    drip,
    ehlo,
    endless,
    hang,
    refused_port,
    reset,
)

TIMEOUT = 0.6  # seconds; a fault that hangs costs as much
STAGES = ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "second RCPT", "DATA", "body")
ON_A_USED_SESSION = STAGES[3:]

SILENT: dict[str, Action] = {"hangs": hang, "drips": drip(b"250-one line\r\n", 0.02)}
BROKEN: dict[str, Action] = {
    **SILENT,
    "closes": close,
    "resets": reset,
    "babbles": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "mixes codes": b"250-yes\r\n550 no\r\n",
    "answers out of step": b"334 what?\r\n",
    "floods": endless(b"250-and another line\r\n"),
    "floods without a line": endless(b"x"),
}
REFUSALS: dict[str, Action] = {
    "says 421": (b"421 too busy\r\n", close),
    "says 451": b"451 not now\r\n",
    "says 550": b"550-never\r\n550 ever\r\n",
}


def sluggish(stage: str, table: Table) -> Action:
    """What the server says when all is well, one byte at a time."""
    answer = table["RCPT" if stage == "second RCPT" else stage]
    assert isinstance(answer, bytes)
    return bytewise(answer)


def expected(stage: str, fault: str, used: bool) -> str:
    """What has to come of a fault. `used`: on a session that has delivered before."""
    if fault == "is sluggish":
        return "sent"
    if used and stage == "MAIL" and fault.startswith("says"):
        return "sent"  # it is about the session, as the sender was accepted before
    if fault == "says 550":
        return {"AUTH": "mail_auth_failed", "RCPT": "recipient_refused"}.get(stage, "mail_rejected")
    if fault == "says 451":
        return f"{_code_of(stage)} retry"
    if stage == "AUTH" and fault == "answers out of step":
        return "mail_auth_failed"  # it is a challenge, and the answer to that is refused
    if stage == "body" and fault != "says 421":
        return "delivery_uncertain"
    if used and stage != "body":
        return "sent"  # the session was replaced
    return "mail_unavailable retry"


def _code_of(stage: str) -> str:
    return "recipient_refused" if stage == "RCPT" else "mail_unavailable"


def with_fault(table: Table, stage: str, fault: Action, *, used: bool) -> Table:
    """The table with a fault at a stage: in the first transaction, or in the second one of the session."""
    key = "RCPT" if stage == "second RCPT" else stage
    good = table[key]
    assert isinstance(good, bytes)
    skipped = (2 if key == "RCPT" else 1) * used + (stage == "second RCPT")
    actions: list[Action] = [*[good] * skipped, fault, good]
    return {**table, key: actions}


def cases() -> Iterator[tuple[bool, bool, str, str]]:
    """Pipelining or not, a used session or not, the stage, the fault."""
    for pipelining in (True, False):
        for used in (False, True):
            for stage in ON_A_USED_SESSION if used else STAGES:
                for fault in (*BROKEN, *REFUSALS, "is sluggish"):
                    yield pipelining, used, stage, fault


def play(test: OutboxTestCase, pipelining: bool, used: bool, stage: str, fault: str) -> list[str]:
    """Deliver into the fault, and once more after it; what is wrong with how it went."""
    table: Table = SMTP if pipelining else {**SMTP, "EHLO": ehlo(*CAPABILITIES[1:])}
    action = {**BROKEN, **REFUSALS, "is sluggish": sluggish(stage, table)}[fault]
    wrong = []
    with ScriptedServer(with_fault(table, stage, action, used=used), table) as server:
        box = test.outbox(server.port, timeout=TIMEOUT if fault in SILENT else 5.0)
        if used and result(box, letter("before")) != "sent":
            wrong.append("the delivery before failed")
        outcome, wanted = result(box, letter("into the fault")), expected(stage, fault, used)
        if outcome != wanted:
            wrong.append(f"{outcome}, not {wanted}")
        handed_over = sum(b"into the fault" in body for body in server.bodies)
        if handed_over != (wanted == "sent" or stage == "body"):
            wrong.append(f"handed over {handed_over} times")
        if (after := result(box, letter("after"))) != "sent":
            wrong.append(f"the next delivery: {after}")
        if sum(b"into the fault" in body for body in server.bodies) != handed_over:
            wrong.append("handed over later")
        if any(b"into the fault" in conversation.partial for conversation in server.conversations):
            wrong.append("a part was handed over")
    return wrong


class FaultTest(OutboxTestCase):
    def test_every_fault_at_every_stage(self) -> None:
        table = list(cases())
        with ThreadPoolExecutor(16) as threads:
            for (pipelining, used, stage, fault), wrong in zip(
                table, threads.map(lambda case: play(self, *case), table), strict=True
            ):
                with self.subTest(stage=stage, fault=fault, pipelining=pipelining, used=used):
                    self.assertEqual(wrong, [])

    def test_nothing_listens(self) -> None:
        self.assertEqual(result(self.outbox(refused_port())), "mail_unavailable retry")

    def test_a_name_that_nobody_has(self) -> None:
        for host in ("mail.invalid", "a" * 70 + ".example", ""):
            with self.subTest(host):
                self.assertEqual(result(self.outbox(25, host=host, timeout=1)), "mail_unavailable retry")


if __name__ == "__main__":
    unittest.main()
