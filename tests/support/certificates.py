"""Certificates for tests, made once a run with the `openssl` command: a CA, and good and bad ones for `localhost`.

    good         signed by the CA for localhost, 127.0.0.1 and ::1
    wrong_host   signed by the CA, for another name
    expired      signed by the CA, over since 2021
    self_signed  for localhost, signed by nobody

`server_context("expired")` is for a server; `certificates().ca` is what MAIL_CA_FILE names.
"""

import atexit
import functools
import shutil
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

_LONG_AGO = ("20200101000000Z", "20210101000000Z")
_CONFIGURATION = """
[ca]
default_ca = ours
[ours]
database = {folder}/index.txt
new_certs_dir = {folder}
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
prompt = no
[name]
CN = test
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[localhost]
basicConstraints = critical, CA:false
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
[elsewhere]
basicConstraints = critical, CA:false
subjectAltName = DNS:elsewhere.example
"""


class Certificates:
    """The files, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        (folder / "index.txt").touch()
        (folder / "openssl.cnf").write_text(_CONFIGURATION.format(folder=folder.as_posix()))
        self._self_sign("ca", "authority", "Test authority")
        self._self_sign("self_signed", "localhost", "localhost")
        self._sign("good", "localhost")
        self._sign("wrong_host", "elsewhere")
        self._sign("expired", "localhost", *_LONG_AGO)

    def chain(self, name: str) -> Path:
        """The certificate."""
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        """Its private key."""
        return self.folder / f"{name}.key"

    def _self_sign(self, name: str, extensions: str, subject: str) -> None:
        self._openssl("req", "-x509", "-subj", f"/CN={subject}", "-extensions", extensions, "-days", "30",
                      *self._new_key(name), "-out", f"{name}.pem")

    def _sign(self, name: str, extensions: str, start: str = "", end: str = "") -> None:
        self._openssl("req", "-new", "-subj", f"/CN={name}", *self._new_key(name), "-out", f"{name}.csr")
        period = ("-startdate", start, "-enddate", end) if start else ("-days", "30")
        self._openssl("ca", "-batch", "-notext", "-in", f"{name}.csr", "-extensions", extensions, *period,
                      "-out", f"{name}.pem")

    def _new_key(self, name: str) -> tuple[str, ...]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"

    def _openssl(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            ["openssl", command, "-config", "openssl.cnf", *arguments],
            cwd=self.folder, capture_output=True, timeout=60,
        )
        if done.returncode:
            raise AssertionError(done.stderr.decode(errors="replace"))


@functools.cache
def certificates() -> Certificates:
    """The certificates of this run; skips the test where there is no `openssl` command."""
    if not shutil.which("openssl"):
        raise unittest.SkipTest("needs the openssl command")
    folder = tempfile.mkdtemp(prefix="mailer-certificates-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Certificates(Path(folder))


def server_context(name: str = "good") -> ssl.SSLContext:
    """A server's context with the certificate of this name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates().chain(name), certificates().key(name))
    return context
