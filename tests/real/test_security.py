"""TLS and logins, by password and by OAuth 2, against Postfix and Dovecot."""

import itertools
import re
import sys
import tempfile
import unittest
from contextlib import ExitStack
from pathlib import Path

from tests.real.scenario import ticket_of
from tests.real.workplace import Workplace
from tests.support.certificates import certificates, server_context
from tests.support.oauth_provider import Provider
from tests.support.realservers import ADMINISTRATOR, MailSystem, Postfix, postfix_and_dovecot, requires
from tests.support.waiting import wait_until

PERSON = "person@example.org"
TICKETS = itertools.count(10_000, 1_000)  # the tests share mailboxes, but not the numbers of their tickets


class MailSystemCase(unittest.TestCase):
    """Mail servers for the whole class; settings, logs and state for each test."""

    system: MailSystem
    security = "plain"

    @classmethod
    def setUpClass(cls) -> None:
        with ExitStack() as stack:
            cls.start(stack)
            cls.addClassCleanup(stack.pop_all().close)

    @classmethod
    def start(cls, stack: ExitStack) -> None:
        cls.system = stack.enter_context(postfix_and_dovecot(security=cls.security))

    def setUp(self) -> None:
        self.workplace = self.workplace_for(self.system)

    def workplace_for(self, system: MailSystem) -> Workplace:
        """Settings for these mail servers."""
        workplace = Workplace(
            SMTP_PORT=system.smtp_port, SMTP_SECURITY=self.security, IMAP_PORT=system.imap_port,
            IMAP_SECURITY=self.security, MAIL_CA_FILE=certificates().ca, TICKET_START=next(TICKETS),
        )
        self.addCleanup(workplace.close)
        return workplace

    def assert_the_whole_job_works(self) -> None:
        self.assert_checks_end_with(0)
        with self.workplace.serving():
            done = self.workplace.ask(PERSON, f"sent by {self.id()}")
        self.assertEqual(done.returncode, 0, done)
        ticket = ticket_of(done.stdout)
        for address in (PERSON, ADMINISTRATOR):
            wait_until(lambda box=address: self.mails(box, f"[Ticket #{ticket}] Mailer") == 1, 60)  # type: ignore[misc]
        collected = self.workplace.run("collector.py", "--once")
        self.assertEqual(collected.returncode, 0, collected)
        mine = [record for record in self.workplace.successes() if record["ticket"] == ticket]
        self.assertEqual([record["text"] for record in mine], [f"sent by {self.id()}"])

    def assert_nothing_is_sent(self, code: str) -> None:
        """A request is answered with this code, and no mail and no login gets through."""
        before = [len(self.system.messages(address)) for address in (PERSON, ADMINISTRATOR)]
        logins = self.logins()
        with self.workplace.serving() as server:
            done = self.workplace.ask(PERSON, "never sent")
            self.assertNotEqual(done.returncode, 0, done)
            wait_until(lambda: code in done.stdout + done.stderr + server.said())  # the log is a moment behind
        after = [len(self.system.messages(address)) for address in (PERSON, ADMINISTRATOR)]
        self.assertEqual(after, before)
        self.assertEqual(self.logins(), logins)

    def assert_checks_end_with(self, code: int, *words: str) -> None:
        for script in ("server.py", "collector.py"):
            with self.subTest(script):
                done = self.workplace.run(script, "--check")
                self.assertEqual(done.returncode, code, done)
                self.assertNotIn("Traceback", done.stderr)
                for word in words:
                    self.assertIn(word, done.stdout + done.stderr)

    def mails(self, address: str, subject: str) -> int:
        """How many mails with this subject lie in the INBOX of this address."""
        return sum(f"\r\nSubject: {subject}\r\n".encode() in raw for raw in self.system.messages(address))

    def logins(self) -> int:
        """How many logins Postfix has taken."""
        assert isinstance(self.system.smtp, Postfix)
        return len(re.findall(r" client=.* sasl_username=", self.system.smtp.mail_log()))


class TlsCase(MailSystemCase):
    """What holds for STARTTLS and for TLS from the first byte alike."""

    def test_the_whole_job(self) -> None:
        self.assert_the_whole_job_works()

    def test_a_certificate_of_another_authority_is_refused(self) -> None:
        self.workplace.configure(MAIL_CA_FILE=certificates().chain("self_signed"))
        self.assert_checks_end_with(69)
        self.assert_nothing_is_sent("mail_unavailable")

    def test_the_authorities_of_the_system_do_not_vouch_for_it(self) -> None:
        self.workplace.configure(MAIL_CA_FILE="")
        self.assert_checks_end_with(69)

    def test_bad_certificates_are_refused(self) -> None:
        for certificate in ("wrong_host", "expired", "self_signed"):
            with self.subTest(certificate):
                with postfix_and_dovecot(security=self.security, certificate=certificate) as self.system:
                    self.workplace = self.workplace_for(self.system)
                    self.assert_checks_end_with(69)
                    self.assert_nothing_is_sent("mail_unavailable")

    def test_a_wrong_password(self) -> None:
        self.workplace.configure(EMAIL_PASSWORD="wrong-password")
        self.assert_checks_end_with(77)
        self.assert_nothing_is_sent("mail_auth_failed")


@requires("postfix", "dovecot", "openssl")
class StartTlsTest(TlsCase):
    security = "starttls"


@requires("postfix", "dovecot", "openssl")
class ImplicitTlsTest(TlsCase):
    security = "tls"


@requires("postfix", "dovecot", "openssl")
class PlainServersTest(MailSystemCase):
    def test_starttls_that_is_not_offered_is_not_done_without(self) -> None:
        self.workplace.configure(SMTP_SECURITY="starttls", IMAP_SECURITY="starttls")
        self.assert_checks_end_with(69, "STARTTLS")
        self.assert_nothing_is_sent("mail_unavailable")


class OAuthCase(MailSystemCase):
    """What holds for every mechanism that carries an access token."""

    security = "tls"
    mechanisms = ""
    provider: Provider

    @classmethod
    def start(cls, stack: ExitStack) -> None:
        cls.provider = stack.enter_context(Provider(ADMINISTRATOR, server_context()))
        settings = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "dovecot-oauth2.conf"
        settings.write_text(
            f"introspection_mode = post\nintrospection_url = {cls.provider.introspection_url}\n"
            "force_introspection = yes\nusername_attribute = username\nactive_attribute = active\nactive_value = true\n"
            "timeout_msecs = 20000\n",
            encoding="utf-8",
        )
        cls.system = stack.enter_context(
            postfix_and_dovecot(security=cls.security, mechanisms=cls.mechanisms,
                                passdb=f"driver = oauth2\nmechanisms = {cls.mechanisms}\nargs = {settings}"))

    def setUp(self) -> None:
        super().setUp()
        client, secret = self.provider.CLIENT
        self.workplace.configure(
            EMAIL_AUTH="oauth2", EMAIL_PASSWORD="", OAUTH_TOKEN_URL=self.provider.token_url, OAUTH_CLIENT_ID=client,
            OAUTH_CLIENT_SECRET=secret, OAUTH_REFRESH_TOKEN=self.provider.REFRESH_TOKEN,
        )
        self.provider.refused, self.provider.dead = None, 0
        self.provider.given.clear()

    def test_the_whole_job(self) -> None:
        self.assert_the_whole_job_works()
        self.assertGreater(self.provider.asked_about, [])

    def test_a_token_from_a_command(self) -> None:
        token = self.provider.new_token(2_500)  # longer than Postfix takes in one command
        printer = self.workplace.folder / "token.py"
        printer.write_text(f"print({token!r})\n", encoding="utf-8")
        self.workplace.configure(EMAIL_TOKEN_COMMAND=f"{sys.executable} {printer}")
        self.assert_the_whole_job_works()
        self.assertEqual(self.provider.given, [token])  # the token endpoint was not needed

    def test_a_token_that_has_been_revoked_is_renewed_once(self) -> None:
        for script in ("server.py", "collector.py"):
            with self.subTest(script):
                self.provider.given.clear()
                self.provider.dead = 1
                done = self.workplace.run(script, "--check")
                self.assertEqual(done.returncode, 0, done)
                self.assertEqual(len(self.provider.given), 2)

    def test_tokens_that_the_mail_servers_refuse(self) -> None:
        for script in ("server.py", "collector.py"):
            with self.subTest(script):
                self.provider.given.clear()
                self.provider.dead = 1000
                done = self.workplace.run(script, "--check")
                self.assertEqual(done.returncode, 77, done)
                self.assertEqual(len(self.provider.given), 2)
        self.assert_nothing_is_sent("mail_auth_failed")

    def test_a_refresh_token_that_the_provider_refuses(self) -> None:
        self.provider.refused = ("invalid_grant", "Token has been expired or revoked.")
        self.assert_checks_end_with(77, "Token has been expired or revoked.")
        self.assert_nothing_is_sent("mail_auth_failed")
        collected = self.workplace.run("collector.py", "--once")
        self.assertEqual(collected.returncode, 77, collected)

    def test_no_secret_is_logged(self) -> None:
        secrets = (self.provider.REFRESH_TOKEN, self.provider.CLIENT[1], "access-token-")
        with self.workplace.running("server.py", "--port", "0", "--verbose") as server:
            server.wait_until(lambda: "listening on" in server.said())
            self.workplace.server_port = int(server.said().rsplit(":", 1)[1].split()[0])
            self.assertEqual(self.workplace.ask(PERSON, "hello").returncode, 0)
            said = server.said()
        said += str(self.workplace.run("collector.py", "--once", "--verbose"))
        for secret in secrets:
            self.assertNotIn(secret, said)


@requires("postfix", "dovecot", "openssl")
class XOAuth2Test(OAuthCase):
    mechanisms = "xoauth2"


@requires("postfix", "dovecot", "openssl")
class OAuthBearerTest(OAuthCase):
    mechanisms = "oauthbearer"


del MailSystemCase, TlsCase, OAuthCase  # only what is derived from them is tested
