"""The end-to-end scenario over Postfix and Dovecot."""

from contextlib import AbstractContextManager

from tests.real import scenario
from tests.support.realservers import MailSystem, postfix_and_dovecot, requires


@requires("postfix", "dovecot")
class PostfixAndDovecotTest(scenario.EndToEnd):
    @classmethod
    def servers(cls) -> AbstractContextManager[MailSystem]:
        return postfix_and_dovecot()
