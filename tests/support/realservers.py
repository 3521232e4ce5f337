"""Real mail servers for tests: Postfix and Dovecot, started privately on free loopback ports.

Each server is a context manager with its own configuration, queue and mail in a temporary folder; nothing of the
machine's own mail set-up is read or touched. `stop()` and `start()` make an outage; the ports and the mail stay.
Any address logs in with `PASSWORD`, and mail for any address lands in that address's own mailbox.

Postfix and Dovecot change to other users while they run, so they have to be started by root. Where that or a program is
missing, `requires(...)` skips the tests and says why. The environment variable MAILER_REAL changes that: with `require`
they fail instead of being skipped, and with `no` the tests of tests/real are left out altogether.
"""

import contextlib
import imaplib
import os
import random
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol, TypeVar

from tests.support.certificates import certificates
from tests.support.waiting import wait_until

PASSWORD = "s3cret-pass"
ADMINISTRATOR = "helpdesk@example.com"
REFUSED = "refused@example.com"  # the one recipient that the SMTP servers here refuse (550)

# Servers that cannot be installed beside others may lie unpacked in a folder of their own.
UNPACKED = Path(os.environ.get("MAILER_SERVERS", "/nonexistent"))
# Where servers live that an ordinary user's PATH leaves out.
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", str(UNPACKED / "usr/sbin")])

# Dovecot's password database in which any user has PASSWORD.
ANY_USER = f"driver = static\nargs = password={PASSWORD}"

Case = TypeVar("Case", bound=type[unittest.TestCase])


def program(name: str) -> str | None:
    """The full path of a program, also of one in the folders for the administrator."""
    return shutil.which(name, path=SYSTEM_PATH)


def _unchanged(case: Case) -> Case:
    return case


def requires(*names: str, root: bool = True) -> Callable[[Case], Case]:
    """Decorator: skip (or, with MAILER_REAL=require, fail) where these programs cannot be run, saying why."""
    missing = [name for name in names if program(name) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else ""
    if root and (os.name != "posix" or os.getuid() != 0):
        reason = "real mail servers have to be started by root"
    if not reason:
        return _unchanged
    if os.environ.get("MAILER_REAL") == "require":
        raise RuntimeError(f"MAILER_REAL=require, but {reason}")
    return unittest.skip(reason)


def free_port() -> int:
    """A loopback port below the range of outgoing connections, so that it stays free in an outage."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _greets(port: int) -> bool:
    """Whether something accepts connections on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


D = TypeVar("D", bound="Daemon")


class Daemon:
    """One server process and all that it starts: started, watched until it is ready, and ended as a group."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"mailer-{name}-"))
        self.folder.chmod(0o755)  # the server's own users have to get through
        self.log = self.folder / "server.log"
        self.log.touch()
        self.log.chmod(0o666)
        self.process: subprocess.Popen[bytes] | None = None
        self._leash: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """How the server is started, staying in the foreground."""
        raise NotImplementedError

    def ports(self) -> list[int]:
        """The ports that accept connections once the server is ready."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        libraries = [str(folder) for folder in UNPACKED.glob("usr/lib/*-linux-*")]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "LD_LIBRARY_PATH": ":".join(libraries)},
            )
        # Should the tests be killed, the pipe from them ends, and so do the server and its folder.
        self._leash = subprocess.Popen(
            ["sh", "-c", 'read _; kill -s KILL -- "-$1"; rm -rf "$2"', "-", str(self.process.pid), str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        try:
            wait_until(self._ready, 30)
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.command()[0]} ended with {self.process.returncode}:\n{self.log.read_text()}")
        return all(_greets(port) for port in self.ports())

    def stop(self) -> None:
        """End the server and its children, and return when none is left to answer."""
        leash, self._leash = self._leash, None
        if leash is not None:
            leash.kill()
            leash.communicate()
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(0.3)  # Dovecot takes seconds where there is nothing to wait for
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        wait_until(lambda: not any(_greets(port) for port in self.ports()), 20)

    def __enter__(self: D) -> D:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and remove the temporary folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class Dovecot(Daemon):
    """Dovecot: IMAP for any user with PASSWORD, LMTP for any recipient, and its SASL service for an SMTP server.

    security: "plain", "starttls" (required) or "tls" (from the first byte).
    certificate: which of tests.support.certificates it shows.
    passdb: another password database than ANY_USER, as the lines inside its section of the configuration.
    mechanisms: the SASL mechanisms it offers.
    """

    def __init__(self, *, security: str = "plain", certificate: str = "good", passdb: str | None = None,
                 mechanisms: str = "plain login", settings: str = "") -> None:
        super().__init__("dovecot")
        self.imap_port, self.lmtp_port = free_port(), free_port()
        self.sasl_socket = self.folder / "run" / "sasl"
        (self.folder / "mail").mkdir()
        shutil.chown(self.folder / "mail", "nobody", "nogroup")
        if security == "plain":
            tls = "ssl = no"
        else:
            chain, key = certificates().chain(certificate), certificates().key(certificate)
            tls = f"ssl = required\nssl_cert = <{chain}\nssl_key = <{key}"
        self.configuration = self.folder / "dovecot.conf"
        self.configuration.write_text(f"""
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.log}
protocols = imap lmtp
listen = 127.0.0.1
{tls}
disable_plaintext_auth = {"no" if security == "plain" else "yes"}
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
passdb {{
{passdb or ANY_USER}
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={self.folder}/mail/%Lu allow_all_users=yes
}}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/Maildir
mail_max_userip_connections = 100
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  inet_listener imap {{
    port = {0 if security == "tls" else self.imap_port}
  }}
  inet_listener imaps {{
    port = {self.imap_port if security == "tls" else 0}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.lmtp_port}
  }}
}}
service auth {{
  unix_listener sasl {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
{settings}
""", encoding="utf-8")

    def command(self) -> list[str]:
        return [program("dovecot") or "dovecot", "-F", "-c", str(self.configuration)]

    def ports(self) -> list[int]:
        return [self.imap_port, self.lmtp_port]

    def maildir(self, address: str) -> Path:
        """The INBOX of this address."""
        return self.folder / "mail" / address.lower() / "Maildir"

    def messages(self, address: str) -> list[bytes]:
        """What lies in the INBOX of this address, in the order of arrival, read from its files with CRLF."""
        files = [file for part in ("new", "cur") for file in self.maildir(address).glob(f"{part}/*")]
        numbers = self._numbers(address)
        files.sort(key=lambda file: numbers.get(file.name.partition(":")[0], 1 << 40))
        return [file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for file in files]

    def _numbers(self, address: str) -> dict[str, int]:
        """UID of each file of the INBOX, by Dovecot's own list."""
        listing = self.maildir(address) / "dovecot-uidlist"
        lines = listing.read_text(encoding="utf-8").splitlines()[1:] if listing.exists() else []
        return {line.rpartition(":")[2]: int(line.split()[0]) for line in lines}

    def deliver(self, address: str, *mails: bytes) -> None:
        """Put these mails into the INBOX of this address, over one LMTP session."""
        with smtplib.LMTP("127.0.0.1", self.lmtp_port) as session:
            for mail in mails:
                session.sendmail("tester@example.net", [address], mail)

    def login(self, address: str = ADMINISTRATOR) -> imaplib.IMAP4:
        """An IMAP session of another mail program, INBOX selected (only where security is "plain")."""
        session = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=30)
        session.login(address, PASSWORD)
        session.select()
        return session

    def change_uidvalidity(self, address: str, value: int) -> None:
        """Give the INBOX of this address another UIDVALIDITY; the server has to be stopped."""
        listing = self.maildir(address) / "dovecot-uidlist"
        head, _, rest = listing.read_text(encoding="utf-8").partition("\n")
        fields = [f"V{value}" if field.startswith("V") else field for field in head.split(" ")]
        listing.write_text(" ".join(fields) + "\n" + rest, encoding="utf-8")
        for index in self.maildir(address).glob("dovecot.index*"):
            index.unlink()


class Postfix(Daemon):
    """Postfix: takes mail for any recipient but REFUSED, from clients that logged in, and passes it on over LMTP.

    security, certificate: as for Dovecot. sasl: Dovecot's SASL socket; None: it offers no AUTH and any client may send.
    """

    SERVICES = """
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

    def __init__(self, *, lmtp_port: int, sasl: Path | None, security: str = "plain",
                 certificate: str = "good", settings: str = "") -> None:
        super().__init__("postfix")
        self.smtp_port = free_port()
        for name in ("etc", "queue", "data"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        log = self.folder / "postfix.log"
        tls = ""
        if security != "plain":
            tls = f"""
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_wrappermode = {"yes" if security == "tls" else "no"}
smtpd_tls_cert_file = {certificates().chain(certificate)}
smtpd_tls_key_file = {certificates().key(certificate)}
"""
        if sasl is not None:
            tls += f"""
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_sasl_security_options = noanonymous
"""
        allow = "permit_mynetworks" if sasl is None else "permit_sasl_authenticated"
        (self.folder / "etc" / "master.cf").write_text(
            f"127.0.0.1:{self.smtp_port} inet n - n - 200 smtpd\n{self.SERVICES}", encoding="utf-8")
        (self.folder / "etc" / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {self.folder}/queue
data_directory = {self.folder}/data
maillog_file = {log}
maillog_file_prefixes = {self.folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.com
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
default_transport = lmtp:inet:127.0.0.1:{lmtp_port}
smtpd_relay_restrictions = check_recipient_access inline:{{ {{ {REFUSED} = 550 5.1.1 no such mailbox }} }},
    {allow}, reject
smtpd_recipient_restrictions = {allow}, reject
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
{tls}
{settings}
""", encoding="utf-8")

    def command(self) -> list[str]:
        return [f"{self._setting('daemon_directory')}/master", "-c", str(self.folder / "etc"), "-s"]

    def start(self) -> None:
        # What `postfix start` does, but with the master process as our own child, so that its end can be waited for.
        subprocess.run([program("postfix") or "postfix", "-c", str(self.folder / "etc"), "check"],
                       check=True, capture_output=True, env={"PATH": SYSTEM_PATH})
        super().start()

    def _setting(self, name: str) -> str:
        """The value of one setting, defaults of this machine's Postfix included."""
        done = subprocess.run([program("postconf") or "postconf", "-c", str(self.folder / "etc"), "-hx", name],
                              check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def ports(self) -> list[int]:
        return [self.smtp_port]

    def mail_log(self) -> str:
        """What Postfix has logged."""
        return (self.folder / "postfix.log").read_text(encoding="utf-8")


class Mailboxes(Protocol):
    """An IMAP server whose mailboxes a test can look into."""

    imap_port: int

    def messages(self, address: str) -> list[bytes]: ...


class MailSystem:
    """An SMTP server and the IMAP server behind it, seen from outside: what an end-to-end test needs."""

    def __init__(self, smtp: Daemon, imap: Mailboxes) -> None:
        self.smtp, self.imap = smtp, imap
        self.smtp_port, self.imap_port = smtp.ports()[0], imap.imap_port

    def messages(self, address: str) -> list[bytes]:
        """What lies in the INBOX of this address, in the order of arrival, with CRLF."""
        return self.imap.messages(address)

    def send(self, message: EmailMessage) -> None:
        """Send a mail as another mail program would, straight to the SMTP server (only where security is "plain")."""
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=30) as session:
            session.ehlo()
            session.login(str(message["From"]), PASSWORD)
            session.send_message(message)


@contextlib.contextmanager
def postfix_and_dovecot(*, security: str = "plain", certificate: str = "good",
                        passdb: str | None = None, mechanisms: str = "plain login") -> Iterator[MailSystem]:
    """Postfix with Dovecot behind it, for mailboxes and for logins."""
    with Dovecot(security=security, certificate=certificate, passdb=passdb, mechanisms=mechanisms) as dovecot:
        with Postfix(lmtp_port=dovecot.lmtp_port, sasl=dovecot.sasl_socket, security=security,
                     certificate=certificate) as postfix:
            yield MailSystem(postfix, dovecot)
