"""Restrict a SQLite database to one host, because SQLite's locks do not work across hosts.

The first host that uses a database file writes its identity into it. Other hosts get OtherHost.
"""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path

from sqlalchemy import delete, insert, select

from docmill.storage.columns import db_now
from docmill.storage.database import Database
from docmill.storage.errors import OtherHost
from docmill.storage.tables import Host

# The kernel's boot id is the same in all containers on a host, and their SQLite locks do work with each other.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


@cache
def this_machine() -> tuple[str, ...]:
    """The identities of this host, any of which is sufficient: one survives a reboot, one is shared by containers."""
    found = [path.read_text().strip() for path in (_MACHINE_ID, _BOOT_ID) if path.is_file()]
    return tuple(filter(None, found)) or (socket.gethostname(),)


def require_this_host(database: Database) -> None:
    """Raise OtherHost if a SQLite database belongs to another host. If it belongs to none, adopt it."""
    if not database.is_sqlite:
        return
    with database.read() as session:
        rows = session.execute(select(Host.machine, Host.name)).all()
    known = {row.machine for row in rows}
    if known & set(this_machine()):
        return
    if rows:
        raise OtherHost(str(database), rows[0].name, socket.gethostname())
    adopt(database)


def adopt(database: Database) -> None:
    """Make a SQLite database belong to this host, because the file was created or moved here."""
    with database.write() as session:
        session.execute(delete(Host))
        for machine in this_machine():
            session.execute(insert(Host).values(machine=machine, name=socket.gethostname(), since=db_now()))
