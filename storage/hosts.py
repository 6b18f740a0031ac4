"""SQLite is for one host: its locks do not reach another one, and a file that two hosts write is soon damaged.

The first host that works on a database file writes its name into it; others are refused.
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

# The kernel's, and so the same in all containers that it runs: they do share their locks.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


@cache
def this_machine() -> tuple[str, ...]:
    """What this host is known by, any of which is enough: one name that survives a reboot, one that a container."""
    found = [path.read_text().strip() for path in (_MACHINE_ID, _BOOT_ID) if path.is_file()]
    return tuple(filter(None, found)) or (socket.gethostname(),)


def require_this_host(database: Database) -> None:
    """Raise OtherHost when a SQLite database belongs to another host; the first that asks gets it."""
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
    """Make this host the one that a SQLite database belongs to: the file was moved here."""
    with database.write() as session:
        session.execute(delete(Host))
        for machine in this_machine():
            session.execute(insert(Host).values(machine=machine, name=socket.gethostname(), since=db_now()))
