"""The end-to-end scenario over two pairs of real mail servers."""

from contextlib import AbstractContextManager

from tests.real import scenario
from tests.support.exim_and_cyrus import exim_and_cyrus
from tests.support.realservers import MailSystem, postfix_and_dovecot, requires


@requires("postfix", "dovecot")
class PostfixAndDovecotTest(scenario.EndToEnd):
    @classmethod
    def servers(cls) -> AbstractContextManager[MailSystem]:
        return postfix_and_dovecot()


@requires("exim4", "cyrmaster")
class EximAndCyrusTest(scenario.EndToEnd):
    @classmethod
    def servers(cls) -> AbstractContextManager[MailSystem]:
        return exim_and_cyrus()
