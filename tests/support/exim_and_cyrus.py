"""A second pair of real mail servers for tests: Exim and Cyrus IMAP, started privately like the first pair.

Distributions do not let them be installed beside Postfix and Dovecot. Their packages can be unpacked into any folder
instead; the environment variable MAILER_SERVERS names it (`.ci/run` shows how). Both change to other users, so root has
to start them.
"""

import contextlib
import imaplib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.realservers import PASSWORD, REFUSED, Daemon, MailSystem, free_port, program


class Cyrus(Daemon):
    """Cyrus: IMAP and LMTP for any user; a mailbox comes into being with its first mail. Takes any password."""

    def __init__(self) -> None:
        super().__init__("cyrus")
        self.imap_port, self.lmtp_port = free_port(), free_port()
        for name in ("conf", "spool", "run"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "nobody", "nogroup")
        self.programs = Path(program("cyrmaster") or "cyrmaster").resolve().parent
        imapd, services = self.folder / "imapd.conf", self.folder / "cyrus.conf"
        imapd.write_text(f"""
configdirectory: {self.folder}/conf
partition-default: {self.folder}/spool
defaultpartition: default
cyrus_user: nobody
cyrus_group: nogroup
virtdomains: userid
defaultdomain: example.invalid
unixhierarchysep: yes
altnamespace: yes
allowplaintext: yes
sasl_mech_list: PLAIN LOGIN
sasl_pwcheck_method: alwaystrue
autocreate_quota: 0
autocreate_post: yes
lmtp_downcase_rcpt: yes
""", encoding="utf-8")
        services.write_text(f"""
START {{
  recover cmd="{self.programs}/ctl_cyrusdb -C {imapd} -r"
}}
SERVICES {{
  imap cmd="{self.programs}/imapd -C {imapd}" listen="127.0.0.1:{self.imap_port}" prefork=0 maxchild=100
  lmtp cmd="{self.programs}/lmtpd -C {imapd} -a" listen="127.0.0.1:{self.lmtp_port}" prefork=0 maxchild=20
}}
EVENTS {{
  checkpoint cmd="{self.programs}/ctl_cyrusdb -C {imapd} -c" period=30
}}
""", encoding="utf-8")

    def command(self) -> list[str]:
        return [f"{self.programs}/master", "-D", "-C", f"{self.folder}/imapd.conf", "-M", f"{self.folder}/cyrus.conf",
                "-p", f"{self.folder}/run/pid"]

    def ports(self) -> list[int]:
        return [self.imap_port, self.lmtp_port]

    def messages(self, address: str) -> list[bytes]:
        """What lies in the INBOX of this address, in the order of arrival, read over IMAP without marking it."""
        with imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=30) as session:
            session.login(address, PASSWORD)
            if session.select(readonly=True)[0] != "OK":
                return []  # no mail yet, so no mailbox yet
            _, data = session.fetch("1:*", "(BODY.PEEK[])") if session.response("EXISTS")[1] != [b"0"] else ("", [])
            return [part[1] for part in data if isinstance(part, tuple)]


class Exim(Daemon):
    """Exim: takes mail for any recipient but REFUSED, from clients that logged in, and passes it on over LMTP."""

    def __init__(self, *, lmtp_port: int) -> None:
        super().__init__("exim")
        self.smtp_port = free_port()
        self.program = program("exim4") or "exim4"
        for name in ("spool", "log"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        self.configuration = self.folder / "exim.conf"
        self.configuration.write_text(f"""
exim_path = {self.program}
exim_user = Debian-exim
exim_group = Debian-exim
deliver_drop_privilege = true
keep_environment =
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/log/%s.log
pid_file_path = {self.folder}/exim.pid
primary_hostname = mail.example.com
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.smtp_port}
tls_advertise_hosts =
host_lookup =
acl_smtp_rcpt = recipient
acl_smtp_data = accept
smtp_accept_max = 200
smtp_accept_max_per_host = 200

begin acl
recipient:
  deny    recipients = {REFUSED}
          message = no such mailbox
  accept  authenticated = *
  deny    message = log in first

begin routers
everybody:
  driver = manualroute
  domains = *
  route_list = * 127.0.0.1
  self = send
  transport = lmtp

begin transports
lmtp:
  driver = smtp
  protocol = lmtp
  hosts = 127.0.0.1
  hosts_override = true
  port = {lmtp_port}
  allow_localhost = true

begin retry
* * F,1h,1s

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if eq{{$auth3}}{{{PASSWORD}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if eq{{$auth2}}{{{PASSWORD}}}}}
  server_set_id = $auth1
""", encoding="utf-8")
        self.configuration.chmod(0o644)

    def command(self) -> list[str]:
        return [self.program, "-C", str(self.configuration), "-bdf", "-q1m"]

    def ports(self) -> list[int]:
        return [self.smtp_port]


@contextlib.contextmanager
def exim_and_cyrus() -> Iterator[MailSystem]:
    """Exim with Cyrus behind it."""
    with Cyrus() as cyrus, Exim(lmtp_port=cyrus.lmtp_port) as exim:
        yield MailSystem(exim, cyrus)
