"""Contexts that verify, and files that cannot be used."""

import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from mailer.errors import ConfigError
from mailer.settings import Endpoint, Security
from mailer.tls import client_context, mail_context, server_context
from tests.support.certificates import certificates


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> str:
    """The version of TLS that they agree on; raises what the client raises."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            try:
                server.wrap_socket(theirs, server_side=True).close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=name) as secured:
            return str(secured.version())
    finally:
        thread.join(10)


class Connecting(unittest.TestCase):
    def setUp(self) -> None:
        self.files = certificates()

    def server(self, name: str) -> ssl.SSLContext:
        return server_context(self.files.chain(name), self.files.key(name))

    def test_a_server_with_a_certificate_of_the_private_authority_is_trusted(self) -> None:
        for name in ("localhost", "127.0.0.1"):
            self.assertEqual(_shake_hands(self.server("good"), client_context(self.files.ca), name), "TLSv1.3")

    def test_every_other_is_not(self) -> None:
        table = (
            ("good", None, "localhost"), ("good", self.files.ca, "example.com"), ("wrong_host", self.files.ca,
            "localhost"),
            ("expired", self.files.ca, "localhost"), ("self_signed", self.files.ca, "localhost"),
        )  # fmt: skip
        for certificate, authority, name in table:
            with self.subTest(certificate, authority=authority, name=name):
                with self.assertRaises(ssl.SSLCertVerificationError):
                    _shake_hands(self.server(certificate), client_context(authority), name)

    def test_where_no_tls_is_to_be_spoken_nobody_is_trusted(self) -> None:
        for security in Security:
            authorities = mail_context(Endpoint("localhost", 25, security), None).cert_store_stats()["x509_ca"]
            self.assertEqual(authorities == 0, security is Security.PLAIN, security)
        plain = Endpoint("localhost", 25, Security.PLAIN)
        with self.assertRaises(ssl.SSLCertVerificationError):
            _shake_hands(self.server("good"), mail_context(plain, None))
        with self.assertRaises(ConfigError):
            mail_context(plain, self.files.key("good"))

    def test_versions_before_1_2_are_refused_on_both_sides(self) -> None:
        for context in (self.server("good"), client_context(self.files.ca)):
            self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)


class Files(unittest.TestCase):
    def setUp(self) -> None:
        self.files = certificates()
        folder = tempfile.TemporaryDirectory(prefix="mailer-tls-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.garbage = self.folder / "garbage.pem"
        self.garbage.write_text("no certificate")
        self.empty = self.folder / "empty.pem"
        self.empty.touch()

    def test_an_authority_that_cannot_be_used_is_named(self) -> None:
        for path in (self.garbage, self.empty, self.folder, self.folder / "missing.pem", self.files.key("good")):
            with self.subTest(path), self.assertRaises(ConfigError) as wrong:
                client_context(path)
            self.assertIn(str(path), str(wrong.exception))
            self.assertIn("MAIL_CA_FILE", str(wrong.exception))

    def test_a_certificate_or_key_that_cannot_be_used_is_named(self) -> None:
        good, key = self.files.chain("good"), self.files.key("good")
        missing, folder = self.folder / "missing.pem", self.folder
        table: tuple[tuple[Path, Path | None, str], ...] = (
            (self.garbage, key, f"SERVER_TLS_CERT: {self.garbage} holds no certificate"),
            (self.empty, None, f"SERVER_TLS_CERT: {self.empty} holds no certificate"),
            (missing, key, f"SERVER_TLS_CERT: {missing} cannot be read (No such file"),
            (folder, key, f"SERVER_TLS_CERT: {folder} cannot be read ("),
            (good, self.garbage, f"SERVER_TLS_KEY: {self.garbage} holds no private key"),
            (good, None, f"SERVER_TLS_KEY: {good} holds no private key"),
            (good, missing, f"SERVER_TLS_KEY: {missing} cannot be read (No such file"),
            (good, self.files.key("expired"), "SERVER_TLS_CERT, SERVER_TLS_KEY: cannot be used (key values mismatch"),
        )
        for chain, private, words in table:
            with self.subTest(chain=chain.name, key=private), self.assertRaises(ConfigError) as wrong:
                server_context(chain, private)
            self.assertIn(words, str(wrong.exception))

    def test_one_file_may_hold_both(self) -> None:
        both = self.folder / "both.pem"
        both.write_bytes(self.files.chain("good").read_bytes() + self.files.key("good").read_bytes())
        self.assertEqual(_shake_hands(server_context(both, None), client_context(self.files.ca)), "TLSv1.3")

    def test_an_encrypted_key_is_an_error_and_no_question_at_the_terminal(self) -> None:
        locked = self.folder / "locked.key"
        subprocess.run(
            ["openssl", "ec", "-aes256", "-passout", "pass:geheim", "-in", self.files.key("good"), "-out", locked],
            check=True, capture_output=True,
        )  # fmt: skip
        with self.assertRaises(ConfigError) as wrong:
            server_context(self.files.chain("good"), locked)
        self.assertIn(f"SERVER_TLS_KEY: the key in {locked} is encrypted", str(wrong.exception))
