"""A real Postfix of one's own: private configuration, queue and ports, nothing of the system's."""

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.smtp_tls import Certificates, make_certificates

_QUEUES = [
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "maildrop",
    "pid",
    "private",
    "public",
    "saved",
    "trace",
]
_SERVICES = """
{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
relay unix - - n - - smtp
flush unix n - n 1000? 0 flush
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
"""
_SETTINGS = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}
daemon_directory = {daemons}
myhostname = postfix.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
relay_domains = example.net, bücher.example
relay_recipient_maps = inline:{{ bob@example.net=x, eve@example.net=x, jörg@bücher.example=x }}
relayhost = [127.0.0.1]:{relay_port}
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtputf8_autodetect_classes = all
message_size_limit = 100000
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtpd_tls_security_level = may
smtpd_tls_chain_files = {root}/server.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = postfix.example
cyrus_sasl_config_path = {root}/conf/sasl
"""
_SASL = """
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {root}/sasldb
mech_list: PLAIN LOGIN CRAM-MD5
"""
_TOOLS = ("postconf", "saslpasswd2")


@dataclass(frozen=True, kw_only=True)
class Postfix:
    """A running one. It takes mail for bob and eve at example.net, and from ann for anybody."""

    port: int
    certificates: Certificates
    log: Path
    user: str = "ann"
    password: str = "hunter2"


def why_not() -> str:
    """Why there can be no Postfix here; empty if there can."""
    if os.geteuid() != 0:
        return "a private Postfix has to be started by root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: postfix, sasl2-bin)"
    return ""


@contextmanager
def run_postfix(relay_port: int) -> Iterator[Postfix]:
    """Starts Postfix, which hands everything on to an SMTP server at `relay_port`."""
    root = Path(tempfile.mkdtemp(prefix="mailrace-postfix-"))
    try:
        root.chmod(0o755)  # its daemons are other users
        postfix = _configure(root, relay_port)
        daemons = _ask("daemon_directory")
        # -w returns once the real process listens.
        subprocess.run([f"{daemons}/master", "-w", "-c", f"{root}/conf"], check=True, timeout=20)
        try:
            yield postfix
        finally:
            _stop(int((root / "queue/pid/master.pid").read_text()))
    finally:
        shutil.rmtree(root)


def _configure(root: Path, relay_port: int) -> Postfix:
    certificates = make_certificates(root)
    server = certificates.authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(root / "server.pem")
    for name in (
        "conf",
        "conf/sasl",
        "data",
        "log",
        "queue",
        *(f"queue/{each}" for each in _QUEUES),
    ):
        (root / name).mkdir()
    for name in ("data", *(f"queue/{each}" for each in _QUEUES if each != "pid")):
        shutil.chown(root / name, "postfix")
    shutil.chown(root / "queue/maildrop", group="postdrop")
    shutil.chown(root / "queue/public", group="postdrop")
    port = _free_port()
    known = {"root": root, "relay_port": relay_port, "daemons": _ask("daemon_directory")}
    (root / "conf/main.cf").write_text(_SETTINGS.format(**known))
    (root / "conf/master.cf").write_text(_SERVICES.format(port=f"127.0.0.1:{port}"))
    (root / "conf/sasl/smtpd.conf").write_text(_SASL.format(**known))
    postfix = Postfix(port=port, certificates=certificates, log=root / "log/mail.log")
    database = root / "sasldb"
    subprocess.run(
        ["saslpasswd2", "-p", "-c", "-f", database, "-u", "postfix.example", postfix.user],
        input=postfix.password.encode(),
        check=True,
        timeout=20,
    )
    shutil.chown(database, "postfix")
    return postfix


def _ask(setting: str) -> str:
    return subprocess.run(
        ["postconf", "-d", "-h", setting], check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(master: int) -> None:
    watch = os.pidfd_open(master)
    try:
        os.kill(master, signal.SIGTERM)
        ended = select.poll()
        ended.register(watch, select.POLLIN)
        if not ended.poll(10_000):
            os.kill(master, signal.SIGKILL)
    finally:
        os.close(watch)
