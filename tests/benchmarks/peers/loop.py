"""The collector that everybody writes: `imaplib`, one FETCH a mail, the default policy and `get_body`.

    loop.py PORT USER PASSWORD SUCCESS-LOG ERROR-LOG
"""

import email
import email.policy
import imaplib
import json
import re
import sys
from pathlib import Path

_TICKET = re.compile(r"\[Ticket #(\d+)\] Mailer$")


def main(port: str, user: str, password: str, success: str, error: str) -> None:
    with imaplib.IMAP4("127.0.0.1", int(port)) as session:
        session.login(user, password)
        session.select()
        _, found = session.search(None, "UNSEEN")
        with Path(success).open("a") as tickets, Path(error).open("a") as others:
            for number in found[0].split():
                _, data = session.fetch(number, "(RFC822)")
                message = email.message_from_bytes(data[0][1], policy=email.policy.default)  # type: ignore[index,arg-type]
                body = message.get_body(("plain", "html"))
                record = {"from": str(message["From"]), "subject": str(message["Subject"])}
                record["text"] = str(body.get_content()) if body else ""
                ticket = _TICKET.search(record["subject"])
                log = tickets if ticket else others
                log.write(json.dumps({"ticket": ticket and int(ticket[1]), **record}, ensure_ascii=False) + "\n")
                log.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
