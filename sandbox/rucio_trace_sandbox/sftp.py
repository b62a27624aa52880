"""OpenSSH's server, for this machine and this account alone, with a host key of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import Server, free_port, program
from .webdav import listens

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sshd"]

_SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
_CLIENT = """\
Host *
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""


class Sshd:
    """A running server. `programs` is a folder for PATH whose `ssh` has the settings of `client_config`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.user = folder, port, getpass.getuser()
        self.data, self.programs = folder / "data", folder / "bin"
        self.client_config, self.known_hosts = folder / "ssh_config", folder / "known_hosts"

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path) -> Iterator[Sshd]:
        for made in (folder / "data", folder / "bin"):
            made.mkdir(parents=True)
        sshd, ssh = program("sshd", "openssh-server", Path("/usr/sbin")), program("ssh", "openssh-client")
        for name in ("host", "user"):
            keygen = [program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(keygen, check=True)
        port = free_port()
        (folder / "sshd_config").write_text(_SERVER.format(folder=folder, port=port))
        (folder / "ssh_config").write_text(_CLIENT.format(folder=folder))
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {folder}/ssh_config "$@"\n')
        (folder / "bin" / "ssh").chmod(0o755)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before anybody is known
        with Server("sshd", [sshd, "-D", "-e", "-f", folder / "sshd_config"], log=folder / "log") as server:
            server.wait_until_ready(partial(listens, port))
            yield cls(folder, port)
