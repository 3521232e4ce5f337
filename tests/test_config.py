"""Settings: every key's good and bad values, all problems at once, and secrets that do not show."""

import contextlib
import math
import operator
import unittest
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mailer.config import KEYS, client_settings, collector_settings, server_settings
from mailer.errors import ConfigError
from mailer.settings import ClientSettings, CollectorSettings, Endpoint, Rate, Security, ServerSettings, is_loopback

BASE = Path("/base")
ACCOUNT = {"EMAIL_LOGIN": "helpdesk@example.com", "EMAIL_PASSWORD": "hunter2"}
SERVER = {**ACCOUNT, "SMTP_HOST": "smtp.example.com", "SMTP_PORT": "465"}
COLLECTOR = {**ACCOUNT, "IMAP_HOST": "imap.example.com", "IMAP_PORT": "993", "PERIOD_CHECK": "60"}
OAUTH = {
    "EMAIL_AUTH": "oauth2", "OAUTH_TOKEN_URL": "https://login.example.com/token", "OAUTH_CLIENT_ID": "id",
    "OAUTH_CLIENT_SECRET": "oauth-secret", "OAUTH_REFRESH_TOKEN": "refresh-secret",
}  # fmt: skip


def _server(**values: str) -> ServerSettings:
    return server_settings({**SERVER, **values}, BASE)


def _collector(**values: str) -> CollectorSettings:
    return collector_settings({**COLLECTOR, **values}, BASE)


def _client(**values: str) -> ClientSettings:
    return client_settings(values, BASE)


def _without(values: Mapping[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if key not in keys}


class Keys(unittest.TestCase):
    def test_those_that_are_read_are_known_and_no_others(self) -> None:
        read = {"EMAIL_PASSWORD_FILE"}  # by `launch`

        class Values(dict[str, str]):
            def get(self, key: str, default: Any = None) -> Any:
                read.add(key)
                return super().get(key, default)

        for auth in ("password", "oauth2"):
            for settings in (server_settings, collector_settings, client_settings):
                with contextlib.suppress(ConfigError):
                    settings(Values(EMAIL_AUTH=auth), BASE)
        self.assertEqual(read, KEYS)


class Defaults(unittest.TestCase):
    def test_of_the_server(self) -> None:
        settings = _server()
        self.assertEqual(settings.account.login, "helpdesk@example.com")
        self.assertEqual(settings.account.password, "hunter2")
        self.assertIsNone(settings.account.oauth)
        self.assertEqual(settings.smtp, Endpoint("smtp.example.com", 465, Security.TLS))
        self.assertEqual((settings.host, settings.port), ("127.0.0.1", 50007))
        self.assertEqual((settings.timeout, settings.sessions), (30.0, 16))
        self.assertEqual((settings.workers, settings.peer_timeout), (256, 15.0))
        self.assertEqual((settings.ticket_start, settings.ticket_step, settings.ticket_offset), (10_000, 1, 0))
        self.assertEqual(settings.rate_per_recipient, Rate(60, 3600, 20))
        self.assertEqual(settings.rate_per_client, Rate(600, 3600, 100))
        self.assertEqual(settings.state_dir, BASE / ".mailer")
        self.assertEqual(
            (settings.token, settings.tls_cert, settings.tls_key, settings.ca_file), (None, None, None, None)
        )

    def test_of_the_collector(self) -> None:
        settings = _collector()
        self.assertEqual(settings.imap, Endpoint("imap.example.com", 993, Security.TLS))
        self.assertEqual((settings.period, settings.timeout), (60.0, 30.0))
        self.assertEqual((settings.folder, settings.mark_seen), ("INBOX", True))
        self.assertEqual(settings.success_log, BASE / "success_request.log")
        self.assertEqual(settings.error_log, BASE / "error_request.log")
        self.assertEqual(settings.state_dir, BASE / ".mailer")

    def test_of_the_client(self) -> None:
        self.assertEqual(_client(), ClientSettings("127.0.0.1", 50007, None, None, 120.0))

    def test_the_client_is_more_patient_than_the_server_needs(self) -> None:
        self.assertGreaterEqual(_client(MAIL_TIMEOUT="10", SERVER_TIMEOUT="4").timeout, 3 * 10 + 4)

    def test_an_empty_value_is_one_that_is_not_given(self) -> None:
        for key in ("SERVER_PORT", "SERVER_HOST", "SERVER_TOKEN", "MAIL_CA_FILE", "RATE_PER_CLIENT", "STATE_DIR",
        "SMTP_SECURITY"):
            for value in ("", "  "):
                if (key, value) != ("SERVER_TOKEN", "  "):
                    with self.subTest(key, value=value):
                        self.assertEqual(_server(**{key: value}), _server())

    def test_each_script_needs_only_its_own_keys(self) -> None:
        _client(EMAIL_LOGIN="", SMTP_PORT="nonsense", IMAP_HOST="")
        self.assertEqual(_client(MAIL_TIMEOUT="nonsense", SERVER_TIMEOUT="-1").timeout, _client().timeout)
        _server(IMAP_PORT="nonsense", PERIOD_CHECK="never", IMAP_FOLDER="\0", MARK_SEEN="perhaps")
        _collector(SMTP_PORT="nonsense", SERVER_PORT="x", TICKET_START="x", RATE_PER_CLIENT="x", SERVER_TLS_KEY="k")


class Values(unittest.TestCase):
    """One table for each script: the key, its value, and what comes of it; None for a complaint that names the key."""

    def check(self, make: Callable[..., object], attribute: str, key: str, table: Mapping[str, object]) -> None:
        for value, expected in table.items():
            with self.subTest(key, value=value[:20]):
                if expected is None:
                    with self.assertRaises(ConfigError) as wrong:
                        make(**{key: value})
                    for problem in wrong.exception.problems:
                        self.assertTrue(problem.startswith(f"{key}: ") and problem.isprintable(), problem)
                else:
                    self.assertEqual(operator.attrgetter(attribute)(make(**{key: value})), expected)

    def test_a_folder_may_have_any_letters_and_blanks(self) -> None:
        for name in ("受信\u3000トレイ", "صندوق\u200cورودی", "À\u00a0faire", "INBOX"):
            with self.subTest(name):
                self.assertEqual(_collector(IMAP_FOLDER=name).folder, name)
        for host in ("smtp\u200b.example.com", "smtp\u00a0.example.com"):
            with self.subTest(ascii(host)), self.assertRaisesRegex(ConfigError, "IMAP_HOST: holds a control"):
                _collector(IMAP_HOST=host)
        steering = ("a\u202eb", "a\u2066b", "a\u2069b", "a\u200eb")
        for name in ("a\nb", "a\x1b[2J", *steering, "a\u2028b", "a\x9bb", "a\udc80b"):
            with self.subTest(ascii(name)), self.assertRaisesRegex(ConfigError, "IMAP_FOLDER: holds a control"):
                _collector(IMAP_FOLDER=name)

    def test_whole_numbers(self) -> None:
        bad = dict.fromkeys(("-1", "x", "1.5", "1e3", "0x10", "1_000", "١٢", "²", "9" * 19, "9" * 5000, "1 2", "\0",
        "1\n2"))
        table: dict[str, tuple[str, int, int, int]] = {
            "SERVER_PORT": ("port", 0, 65_535, 65_536),
            "SERVER_WORKERS": ("workers", 1, 10_000, 10_001),
            "SMTP_SESSIONS": ("sessions", 1, 1_000, 1_001),
            "TICKET_START": ("ticket_start", 1, 10**15, 10**15 + 1),
            "TICKET_STEP": ("ticket_step", 1, 1_000_000, 1_000_001),
        }
        for key, (name, low, high, beyond) in table.items():
            good = {str(low): low, f" {high}\t": high, f"00{low}": low}
            under = {} if low == 0 else {str(low - 1): None}
            self.check(_server, name, key, {**good, **bad, **under,
            str(beyond): None})
        for key, make in (("SMTP_PORT", _server), ("IMAP_PORT", _collector), ("SERVER_PORT", _client)):
            self.check(make, "", key, {**bad, "0": None, "65536": None})

    def test_the_offset_is_below_the_step(self) -> None:
        self.assertEqual(_server(TICKET_STEP="3", TICKET_OFFSET="2").ticket_offset, 2)
        for step, offset in (("3", "3"), ("1", "1")):
            with self.assertRaises(ConfigError) as wrong:
                _server(TICKET_STEP=step, TICKET_OFFSET=offset)
            self.assertIn("TICKET_OFFSET", wrong.exception.problems[0])

    def test_seconds(self) -> None:
        table = {
            "1": 1.0, "0.25": 0.25, " 1.5 ": 1.5, "1e1": 10.0, "86400": 86_400.0, "0.0001": 0.0001,
            "0": None, "-1": None, "nan": None, "inf": None, "-inf": None, "1e400": None, "86401": None, "x": None,
            "1,5": None,
            "1 s": None, "0x1": None, "0.0": None, "1e-400": None, "9" * 5000: None, "NaN\n": None,
        }  # fmt: skip
        longer = {"86401": 86_401.0, "604800": 604_800.0, "1e10": None}
        self.check(_collector, "period", "PERIOD_CHECK", {**table, **longer})
        self.check(_collector, "timeout", "MAIL_TIMEOUT", table)
        self.check(_server, "peer_timeout", "SERVER_TIMEOUT", table)
        self.assertTrue(math.isfinite(_collector().period))

    def test_choices(self) -> None:
        self.check(
            _collector, "mark_seen", "MARK_SEEN",
            {"yes": True, "No": False, "NO ": False, "true": None, "1": None, "yes no": None},
        )  # fmt: skip
        self.check(_server, "account.oauth", "EMAIL_AUTH", {"oauth": None,
        "token": None})

    def test_rates(self) -> None:
        table: dict[str, object] = {
            "60/hour burst 20": Rate(60, 3600, 20), "1/minute": Rate(1, 60, 1), "7/hour": Rate(7, 3600, 7),
            " 5/MINUTE   BURST 9 ": Rate(5, 60, 9), "999999999/hour": Rate(999_999_999, 3600, 999_999_999),
            "0/hour": None, "1/hour burst 0": None, "1/day": None, "1/second": None, "x": None, "-1/hour": None,
            "1.5/hour": None,
            "60": None, "60 / hour": None, "60/hour burst": None, "60/hourburst 2": None, "60/hour, burst 20": None,
            "on": None,
            "9999999999/hour": None, "1/hour burst 9999999999": None, "1/hour\nburst 2": None,
        }  # fmt: skip
        self.check(_server, "rate_per_recipient", "RATE_PER_RECIPIENT",
        table)
        self.check(_server, "rate_per_client", "RATE_PER_CLIENT", table)
        self.assertIsNone(_server(RATE_PER_CLIENT="Off").rate_per_client)
        self.assertIsNone(_server(RATE_PER_RECIPIENT="off").rate_per_recipient)

    def test_hosts_folders_and_logins_hold_no_control_characters(self) -> None:
        bad = dict.fromkeys(("a\nb", "a\0b", "a\x1b[2J", "a\x7fb", "a\udcffb"))
        self.check(_server, "", "SERVER_HOST", bad)
        self.check(_server, "", "SMTP_HOST", bad)
        self.check(_collector, "", "IMAP_HOST", bad)
        self.check(_collector, "folder", "IMAP_FOLDER", {"Ящик/Входящие & co": "Ящик/Входящие & co",
        **bad})
        self.check(_collector, "account.login", "EMAIL_LOGIN", {"any user": "any user",
        **bad})

    def test_the_server_sends_from_its_login_so_it_is_an_address(self) -> None:
        table: dict[str, object] = {
            "a@localhost": "a@localhost", "büro@example.com": "büro@example.com",
            **dict.fromkeys((
                "helpdesk", "a@", "@b.de", "a@b@c.de", "a b@c.de", "<a@b.de>", "a@b.de>", "a,b@c.de",
                "Help <a@b.de>", '"a"@b.de',
                "a@[127.0.0.1]", "a@b.de, c@d.de",
            )),
        }  # fmt: skip
        self.check(_server, "account.login", "EMAIL_LOGIN", table)

    def test_paths_are_taken_from_the_base(self) -> None:
        table: dict[str, object] = {
            "x/ca.pem": BASE / "x/ca.pem", "/etc/ca.pem": Path("/etc/ca.pem"), " a~b": BASE / "a~b", "a\0b": None,
            "~nobody-of-this-name/x": None,
        }  # fmt: skip
        self.check(_server, "ca_file", "MAIL_CA_FILE", table)
        self.check(_server, "state_dir", "STATE_DIR", table)
        self.check(_server, "tls_cert", "SERVER_TLS_CERT", table)
        self.check(_collector, "success_log", "SUCCESS_LOG", table)
        self.check(_collector, "error_log", "ERROR_LOG", table)
        self.check(_client, "tls_ca", "SERVER_TLS_CA", table)

    def test_the_two_logs_are_two_files(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            _collector(ERROR_LOG="success_request.log")
        self.assertEqual(raised.exception.problems, ("ERROR_LOG: must be another file than SUCCESS_LOG",))

    def test_a_key_needs_its_certificate(self) -> None:
        self.assertEqual(_server(SERVER_TLS_CERT="both.pem").tls_key, None)
        with self.assertRaises(ConfigError) as wrong:
            _server(SERVER_TLS_KEY="key.pem")
        self.assertEqual(wrong.exception.problems, ("SERVER_TLS_CERT: is needed with SERVER_TLS_KEY",))

    def test_a_password_is_taken_as_it_is(self) -> None:
        for password in (" blanks ", "пароль", "a'b\"c\\d$e${F}#g", "\t", "x" * 10_000):
            with self.subTest(password[:10]):
                self.assertEqual(_server(EMAIL_PASSWORD=password).account.password, password)
                self.assertEqual(_server(SERVER_TOKEN=password).token, password)


class Securities(unittest.TestCase):
    def test_auto(self) -> None:
        table = (
            ("smtp.example.com", "465", Security.TLS), ("smtp.example.com", "993", Security.TLS),
            ("smtp.example.com", "587", Security.STARTTLS), ("smtp.example.com", "25", Security.STARTTLS),
            ("smtp.example.com", "1465", Security.STARTTLS), ("192.168.1.5", "25", Security.STARTTLS),
            ("10.0.0.1", "587", Security.STARTTLS), ("127.example.com", "25", Security.STARTTLS),
            ("localhost.example.com", "25", Security.STARTTLS), ("0.0.0.0", "25", Security.STARTTLS),
            ("localhost", "25", Security.PLAIN), ("LocalHost", "587", Security.PLAIN), ("127.0.0.1", "25",
            Security.PLAIN),
            ("127.8.9.10", "25", Security.PLAIN), ("::1", "25", Security.PLAIN), ("localhost", "465", Security.TLS),
            ("127.0.0.1", "993", Security.TLS),
        )  # fmt: skip
        for host, port, security in table:
            with self.subTest(host=host, port=port):
                self.assertEqual(_server(SMTP_HOST=host, SMTP_PORT=port).smtp.security, security)
                self.assertEqual(_collector(IMAP_HOST=host, IMAP_PORT=port).imap.security, security)

    def test_what_is_chosen_is_taken(self) -> None:
        for security in Security:
            self.assertEqual(_server(SMTP_SECURITY=security.value.upper()).smtp.security, security)
        for value in ("ssl", "none", "tls1.2", "starttls?"):
            with self.subTest(value), self.assertRaises(ConfigError) as wrong:
                _server(SMTP_SECURITY=value)
            self.assertIn("SMTP_SECURITY: must be one of auto, tls, starttls, plain", wrong.exception.problems[0])

    def test_a_login_in_clear_to_another_machine_is_refused(self) -> None:
        with self.assertRaises(ConfigError) as wrong:
            _collector(IMAP_SECURITY="plain", IMAP_PORT="143")
        self.assertTrue(wrong.exception.problems[0].startswith("IMAP_SECURITY: "))
        self.assertEqual(_collector(IMAP_SECURITY="plain", IMAP_HOST="localhost").imap.security, Security.PLAIN)
        # Over SMTP it may be a relay that wants no login; a secret must not go there all the same.
        self.assertFalse(_server(SMTP_SECURITY="plain").smtp.confidential)
        self.assertTrue(_server(SMTP_SECURITY="plain", SMTP_HOST="127.0.0.1").smtp.confidential)

    def test_loopback_is_what_is_written_so(self) -> None:
        for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1"):
            self.assertTrue(is_loopback(host), host)
        for host in ("0.0.0.0", "::", "example.com", "128.0.0.1", "localhost.", "127.1", "localhost6", "", "::2",
        "127.0.0.1.nip.io"):
            self.assertFalse(is_loopback(host), host)


class Hosts(unittest.TestCase):
    def test_an_address_may_be_in_brackets(self) -> None:
        others = ("::1", "fe80::1%eth0", "192.0.2.1", "mail.example.com.", "пошта.example")
        for host, plain in (("[::1]", "::1"), ("[192.0.2.1]", "192.0.2.1"), *zip(others, others, strict=True)):
            with self.subTest(host):
                self.assertEqual(_server(SMTP_HOST=host, SERVER_HOST=host).smtp.host, plain)
                self.assertEqual(_server(SERVER_HOST=host).host, plain)
                self.assertEqual(_client(SERVER_HOST=host).host, plain)
                self.assertEqual(_collector(IMAP_HOST=host).imap.host, plain)

    def test_a_port_or_a_url_is_no_host(self) -> None:
        for host in ("mail.example.com:587", "127.0.0.1:25", "http://mail.example.com", "smtps://mail.example.com:465",
                     "[::1]:25", "mail.example.com/", "::1::", "[]"):  # fmt: skip
            with self.subTest(host), self.assertRaises(ConfigError) as wrong:
                _server(SMTP_HOST=host)
            self.assertIn("SMTP_HOST: must be the name or the address of a host", wrong.exception.problems[0])


class TokenOnTheWire(unittest.TestCase):
    def test_goes_to_no_other_machine_in_clear(self) -> None:
        for host in ("helpdesk.example.com", "192.0.2.1", "::", "localhost.example.com"):
            with self.subTest(host), self.assertRaises(ConfigError) as caught:
                _client(SERVER_HOST=host, SERVER_TOKEN="token-secret")
            self.assertEqual(
                caught.exception.problems, (f"SERVER_TLS_CA: is missing: the token would go to {host} in clear",)
            )

    def test_goes_to_another_machine_inside_tls_and_to_this_one_as_it_is(self) -> None:
        other = _client(SERVER_HOST="helpdesk.example.com", SERVER_TOKEN="token-secret", SERVER_TLS_CA="ca.pem")
        self.assertEqual((other.token, other.tls_ca), ("token-secret", BASE / "ca.pem"))
        for host in ("localhost", "127.0.0.2", "::1", "[::1]"):
            with self.subTest(host):
                self.assertEqual(_client(SERVER_HOST=host, SERVER_TOKEN="token-secret").token, "token-secret")
        self.assertIsNone(_client(SERVER_HOST="helpdesk.example.com").token)


class OAuthSettings(unittest.TestCase):
    def test_the_refresh_grant(self) -> None:
        account = server_settings({**_without(SERVER, "EMAIL_PASSWORD"), **OAUTH}, BASE).account
        assert account.oauth
        self.assertEqual(account.oauth.token_url, "https://login.example.com/token")
        self.assertEqual((account.oauth.client_id, account.oauth.client_secret), ("id", "oauth-secret"))
        self.assertEqual((account.oauth.refresh_token, account.oauth.command), ("refresh-secret", None))

    def test_a_public_client_has_no_secret(self) -> None:
        account = collector_settings({**COLLECTOR, **_without(OAUTH, "OAUTH_CLIENT_SECRET")}, BASE).account
        assert account.oauth
        self.assertIsNone(account.oauth.client_secret)

    def test_a_command_is_enough(self) -> None:
        for command in ("oama 'access me", 'oama "', "oama \\"):
            with self.subTest(command), self.assertRaises(ConfigError) as wrong:
                _server(EMAIL_AUTH="oauth2", EMAIL_TOKEN_COMMAND=command)
            self.assertIn("EMAIL_TOKEN_COMMAND: has a quote", wrong.exception.problems[0])
        account = _server(EMAIL_AUTH="oauth2", EMAIL_TOKEN_COMMAND="oama access me").account
        assert account.oauth
        self.assertEqual((account.oauth.command, account.oauth.token_url), ("oama access me", None))

    def test_what_is_missing_is_named(self) -> None:
        with self.assertRaises(ConfigError) as wrong:
            _server(EMAIL_AUTH="oauth2")
        for key in ("OAUTH_REFRESH_TOKEN", "OAUTH_TOKEN_URL", "OAUTH_CLIENT_ID"):
            self.assertTrue(any(problem.startswith(f"{key}: ") for problem in wrong.exception.problems), key)

    def test_the_token_url_is_one(self) -> None:
        for url in (
            "login.example.com/token", "//login.example.com/token", "ftp://example.com", "file:///etc/passwd",
            "data:,x", "https://", "https:///token", "https://:443/", "https://[::1", "https://login.example.com:99999/",
            "https://login.example.com:0/", "https://login.example.com:port/", "https://login..example.com/",
            "https://login.example.com/a b", "https://login.example.com/é", f"https://{'x' * 64}.example.com/",
            "https://me:pa55word@login.example.com/", "https://pa55word@login.example.com/", "https://@login.example.com/",
            "http://login.example.com/token", "http://127.0.0.1.example.com/", "http://me:pa55word@localhost/",
        ):  # fmt: skip
            with self.subTest(url), self.assertRaises(ConfigError) as wrong:
                _server(**{**OAUTH, "OAUTH_TOKEN_URL": url})
            (problem,) = wrong.exception.problems
            self.assertTrue(problem.startswith("OAUTH_TOKEN_URL: "))
            self.assertNotIn("pa55word", problem)

    def test_a_token_url_that_can_be_asked_is_taken(self) -> None:
        for url in (
            "https://oauth2.googleapis.com/token", "HTTPS://login.example.com:8443/a/b?c=d@e", "https://[2001:db8::1]/",
            "https://192.0.2.1", "https://login.example.com./token", "http://localhost:8080/token", "http://[::1]:8080/",
            "http://127.0.0.2/",
        ):  # fmt: skip
            with self.subTest(url):
                account = _server(**{**OAUTH, "OAUTH_TOKEN_URL": url}).account
                self.assertEqual(account.oauth and account.oauth.token_url, url)


class Complaints(unittest.TestCase):
    def test_every_missing_key_is_named_at_once(self) -> None:
        table: tuple[tuple[Callable[[Mapping[str, str], Path], object], set[str]], ...] = (
            (server_settings, {"EMAIL_LOGIN", "EMAIL_PASSWORD", "SMTP_HOST", "SMTP_PORT"}),
            (collector_settings, {"EMAIL_LOGIN", "EMAIL_PASSWORD", "IMAP_HOST", "IMAP_PORT", "PERIOD_CHECK"}),
        )
        for make, keys in table:
            with self.subTest(make.__name__), self.assertRaises(ConfigError) as wrong:
                make({}, BASE)
            self.assertEqual({problem.partition(":")[0] for problem in wrong.exception.problems}, keys)
            self.assertEqual(len(wrong.exception.problems), len(keys))

    def test_every_bad_key_is_named_at_once(self) -> None:
        bad = {
            "SMTP_PORT": "x", "SMTP_SECURITY": "x", "SERVER_PORT": "x", "SERVER_WORKERS": "0", "MAIL_TIMEOUT": "nan",
            "SERVER_TIMEOUT": "0", "RATE_PER_CLIENT": "x", "RATE_PER_RECIPIENT": "x", "TICKET_START": "x",
            "TICKET_STEP": "x",
            "TICKET_OFFSET": "x", "EMAIL_LOGIN": "x", "SERVER_TOKEN": "\0", "SMTP_SESSIONS": "-", "STATE_DIR": "\n\0x",
            "MAIL_CA_FILE": "\0", "SERVER_HOST": "a\nb",
        }  # fmt: skip
        with self.assertRaises(ConfigError) as wrong:
            _server(**bad)
        self.assertEqual({problem.partition(":")[0] for problem in wrong.exception.problems}, set(bad))

    def test_no_complaint_and_no_repr_shows_a_secret(self) -> None:
        secrets = {
            "EMAIL_PASSWORD": "hunter2\0", "SERVER_TOKEN": "token-secret\0",
            "OAUTH_CLIENT_SECRET": "oauth-secret\0", "OAUTH_REFRESH_TOKEN": "refresh-secret\0",
        }  # fmt: skip
        for auth in ("password", "oauth2"):
            with self.subTest(auth), self.assertRaises(ConfigError) as wrong:
                _server(**{**OAUTH, **secrets, "EMAIL_AUTH": auth})
            self.assertFalse([word for word in ("hunter2",
            "secret") if word in str(wrong.exception).replace("SECRET", "")])
        good = {key: value.rstrip("\0") for key, value in secrets.items()}
        for settings in (_server(**good), _server(**OAUTH, **_without(good, *OAUTH)), _collector(**good),
        _client(**good)):
            self.assertFalse([word for word in ("hunter2", "secret'") if word in repr(settings)], repr(settings))

    def test_foreign_bytes_in_a_secret_are_refused_here(self) -> None:
        for key in ("EMAIL_PASSWORD", "SERVER_TOKEN"):
            with self.subTest(key), self.assertRaises(ConfigError) as wrong:
                _server(**{key: "x\udcff"})
            self.assertTrue(wrong.exception.problems[0].startswith(f"{key}: "))
