"""The cluster of real services of the integration tests, and one whose servers require passwords and TLS."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
import trustme
from redis import Redis

from tests.integration.conftest import Cluster, cluster, either_cluster, make_cluster
from tests.security.tls import tls_front

__all__ = ["cluster", "either_cluster", "make_cluster"]


@dataclass(frozen=True)
class Role:
    """A Postgres role that needs a password."""

    name: str
    password: str
    database: str
    socket: str


@pytest.fixture
def role(postgres_admin: sa.Engine, postgres_url: str) -> Iterator[Role]:
    """The owner of a new database. The server requires a password only for this role."""
    role = Role(
        name=f"r{secrets.token_hex(4)}",
        password=secrets.token_hex(12),
        database=str(sa.make_url(postgres_url).database),
        socket=f"{postgres_admin.url.query['host']}/.s.PGSQL.5432",
    )
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role.name} LOGIN PASSWORD '{role.password}'")
        connection.exec_driver_sql(f"ALTER DATABASE {role.database} OWNER TO {role.name}")
        rules = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
        before = rules.read_text()
        rules.write_text(f"local all {role.name} scram-sha-256\n{before}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield role
        rules.write_text(before)
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        connection.exec_driver_sql(f"DROP DATABASE {role.database} WITH (FORCE)")
        connection.exec_driver_sql(f"CREATE DATABASE {role.database}")  # postgres_url drops it
        connection.exec_driver_sql(f"DROP ROLE {role.name}")


@dataclass(frozen=True)
class Guarded:
    """A cluster whose servers require TLS and passwords; `authority` is the file of the certificate authority."""

    cluster: Cluster
    broker_password: str
    database_password: str
    authority: Path

    @property
    def secrets(self) -> tuple[str, str]:
        return self.broker_password, self.database_password


@pytest.fixture
def guarded(make_cluster: Callable[..., Cluster], role: Role, tmp_path: Path) -> Iterator[Guarded]:
    """Valkey and Postgres with passwords and TLS."""
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    made: list[Cluster] = []
    broker_password = secrets.token_hex(12)
    with (
        tls_front(authority, lambda: made[0].broker.url.removeprefix("redis+socket://")) as broker_port,
        tls_front(authority, lambda: role.socket, is_postgres=True) as database_port,
    ):
        cluster = make_cluster(
            f"postgresql://{role.name}:{role.password}@localhost:{database_port}/{role.database}"
            f"?sslmode=verify-full&sslrootcert={ca}",
            BROKER__URL=f"rediss://:{broker_password}@localhost:{broker_port}/0"
            f"?ssl_cert_reqs=required&ssl_ca_certs={ca}",
        )
        made.append(cluster)
        with Redis(unix_socket_path=cluster.broker.url.removeprefix("redis+socket://")) as redis:
            redis.config_set("requirepass", broker_password)
        yield Guarded(cluster, broker_password, role.password, ca)
        cluster.stop()  # before its database is dropped
