"""A run joins a scheduler whose connections and dashboard are encrypted, with certificates from Dask's own configuration."""

import os
import re
import subprocess
import sys

import dask
import psutil
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster
from distributed.security import Security
from typer.testing import CliRunner

from galbatch import catalog, cluster, config, dashboard
from galbatch.cli import app as cli
from galbatch.cluster.kinds import scheduler as joined
from galbatch.errors import ClusterError


def certificates(folder):
    """A key and its self-signed certificate: the names under which Dask's configuration knows them, and their files."""
    folder.mkdir()
    made = Security.temporary()
    for name, content in (
        ("ca", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)
    ):  # fmt: skip
        (folder / f"{name}.pem").write_text(content)
    return {
        "distributed.comm.tls.ca-file": str(folder / "ca.pem"),
        "distributed.comm.tls.client.cert": str(folder / "cert.pem"),
        "distributed.comm.tls.client.key": str(folder / "key.pem"),
    }


def environment(settings):
    """The same settings as environment variables."""
    return {
        "DASK_" + key.upper().replace(".", "__").replace("-", "_"): value for key, value in settings.items()
    }


def https_of(settings):
    """What the dashboard needs to speak https, and clients to give its address so."""
    names = ("cert", "key")
    return {
        f"distributed.scheduler.dashboard.tls.{n}": settings[f"distributed.comm.tls.client.{n}"]
        for n in names
    }


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """The certificates, and the cluster whose scheduler and worker have them; its dashboard speaks https."""
    settings = certificates(tmp_path_factory.mktemp("tls") / "own")
    ca, cert, key = settings.values()
    roles = {f"tls_{role}_{kind}": path for role in ("scheduler", "worker", "client") for kind, path in (("cert", cert), ("key", key))}  # fmt: skip
    security = Security(require_encryption=True, tls_ca_file=ca, **roles)
    # Only while it starts: other clusters of this process are not encrypted.
    with dask.config.set(https_of(settings)):
        running = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            security=security,
            protocol="tls",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
    with running:
        yield settings, running


def test_who_has_the_certificates_joins(encrypted):
    settings, running = encrypted
    with (
        dask.config.set(settings | https_of(settings)),
        cluster.connect(
            config.ClusterConfig(kind="scheduler", scheduler=running.scheduler_address)
        ) as connected,
    ):
        assert connected.scheduler.address.startswith("tls://127.0.0.1:")
        assert re.fullmatch(r"https://127\.0\.0\.1:\d+/galaxies", dashboard.watch(connected))
        assert all(address.startswith("tls://127.0.0.1:") for address in connected.run(os.getpid))


def test_workers_of_this_machine_are_encrypted_where_dask_requires_it(encrypted):
    ca, cert, key = encrypted[0].values()
    settings = {"distributed.comm.tls.ca-file": ca, "distributed.comm.require-encryption": True}
    for role in ("scheduler", "worker", "client"):
        settings |= {f"distributed.comm.tls.{role}.cert": cert, f"distributed.comm.tls.{role}.key": key}
    local = config.ClusterConfig(workers=1, dashboard_address="127.0.0.1:0")
    with dask.config.set(settings), cluster.connect(local) as connected:
        assert connected.scheduler.address.startswith("tls://127.0.0.1:")
        assert all(address.startswith("tls://127.0.0.1:") for address in connected.run(os.getpid))


@pytest.mark.slow
def test_a_run_joins_with_certificates_from_the_environment(encrypted, write_run, survey, tmp_path):
    settings, running = encrypted
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 8), tmp_path / "objects.parquet")
    run_toml = write_run(tmp_path, max_objects=8, passes=4, objects=tmp_path / "objects.parquet")
    assert running.scheduler_address.startswith("tls://")
    command = ["run", str(run_toml), "--workers", "1", "--scheduler", running.scheduler_address]
    done = subprocess.run(
        [sys.executable, "-m", "galbatch", *command],
        env=os.environ | environment(settings | https_of(settings)),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "8 of 8 objects in the catalog" in done.stdout
    assert "dashboard: https://127.0.0.1:" in done.stdout
    assert len(catalog.read_catalog(str(tmp_path / "catalog"))) == 8


@pytest.mark.parametrize("with_certificates", ["none", "of others"])
def test_who_has_no_certificate_of_it_is_told_what_to_set(encrypted, write_run, tmp_path, with_certificates):
    _, running = encrypted
    run_toml = write_run(tmp_path / "run")
    settings = {} if with_certificates == "none" else certificates(tmp_path / "others")
    with dask.config.set(settings):
        result = CliRunner().invoke(cli.app, ["run", str(run_toml), "--scheduler", running.scheduler_address])
    assert isinstance(result.exception, ClusterError)  # exit code 2
    assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in str(result.exception)


def test_an_unencrypted_connection_is_refused(encrypted, monkeypatch):
    monkeypatch.setattr(joined, "CONNECT_S", 2)
    address = encrypted[1].scheduler_address.replace("tls://", "tcp://")
    plain = config.ClusterConfig(kind="scheduler", scheduler=address)
    with pytest.raises(ClusterError, match="no Dask scheduler answers there"), cluster.connect(plain):
        pytest.fail("joined without encryption")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://hub.example.org/user/anna/proxy/{port}/status", r"https://hub.example.org/user/anna/proxy/\d+/galaxies"),
        ("{scheme}://{host}:{port}/status", r"http://127\.0\.0\.1:\d+/galaxies"),
    ],
)  # fmt: skip
def test_the_dashboards_link_may_lead_through_a_proxy(client, link, expected):
    with dask.config.set({"distributed.dashboard.link": link}):
        assert re.fullmatch(expected, dashboard.watch(client))


def listening(process):
    """The addresses on which a process and its children accept connections."""
    return {
        connection.laddr.ip
        for one in (process, *process.children(recursive=True))
        for connection in one.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_nothing_binds_beyond_the_loopback():
    """Scheduler, nannies, workers and their dashboards, in a process of their own so that others do not count."""
    code = (
        "import sys\nfrom galbatch import cluster, config, dashboard\n"
        "if __name__ == '__main__':\n"
        "    with cluster.connect(config.ClusterConfig(workers=2, dashboard_address=sys.argv[1])) as client:\n"
        "        client.wait_for_workers(2)\n        dashboard.watch(client)\n"
        "        print('up', flush=True)\n        sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, "127.0.0.1:0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        found = listening(psutil.Process(process.pid))
        process.communicate("\n", timeout=60)
    assert found == {"127.0.0.1"}
