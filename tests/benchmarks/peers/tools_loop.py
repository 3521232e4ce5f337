"""The same with imap_tools, as its documentation has it.

    tools_loop.py PORT USER PASSWORD SUCCESS-LOG ERROR-LOG
"""

import json
import re
import sys
from pathlib import Path

from imap_tools import AND, MailBoxUnencrypted  # type: ignore[import-not-found]

_TICKET = re.compile(r"\[Ticket #(\d+)\] Mailer$")


def main(port: str, user: str, password: str, success: str, error: str) -> None:
    with MailBoxUnencrypted("127.0.0.1", int(port)).login(user, password) as mailbox:
        with Path(success).open("a") as tickets, Path(error).open("a") as others:
            for message in mailbox.fetch(AND(seen=False), bulk=100):
                record = {"from": message.from_, "subject": message.subject, "text": message.text or message.html}
                ticket = _TICKET.search(message.subject)
                log = tickets if ticket else others
                log.write(json.dumps({"ticket": ticket and int(ticket[1]), **record}, ensure_ascii=False) + "\n")
                log.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
