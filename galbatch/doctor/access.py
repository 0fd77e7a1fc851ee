"""The credentials that are found, by name and never by value, and the schedulers of jobs and containers within reach."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from galbatch.doctor.findings import Finding

__all__ = ["clusters", "credentials", "redacted"]

ANSWER_S = 8.0
"""The time that a scheduler has to answer, in seconds."""

VARIABLES: Mapping[str, tuple[str, ...]] = {
    "S3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_ENDPOINT_URL",
        "FSSPEC_S3_ANON",
    ),
    "Google Cloud": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "Azure": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING"),
    "TLS of Dask": (
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
    ),
}
"""The variables that credentials are taken from, by what they are for."""

FILES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "S3": (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config")),
    "Google Cloud": (("", "~/.config/gcloud/application_default_credentials.json"),),
}
"""The files that credentials are taken from: the variable that names each, and where it is without it."""

SECRET_NAME = re.compile("KEY|SECRET|TOKEN|PASSW|CREDENTIAL|CONNECTION_STRING|AUTH", re.IGNORECASE)
SHORTEST_SECRET = 6


def credentials() -> Finding:
    """Return which variables are set and which files are there; no value and no content."""
    found = {
        use: [name for name in names if os.environ.get(name)]
        + [str(path) for path in map(_path, FILES.get(use, ())) if path.is_file()]
        for use, names in VARIABLES.items()
    }
    rows = [(use, ", ".join(names) or "none found") for use, names in found.items()]
    return Finding(tuple(rows), {"credentials": found})


def _path(file: tuple[str, str]) -> Path:
    variable, default = file
    return Path((os.environ.get(variable) if variable else None) or default).expanduser()


def redacted(text: str) -> str:
    """Return a text without the values of variables that may be secret, and without passwords in URLs."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"[{name}]")
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1[credentials]@", text)


def clusters() -> Finding:
    """Return whether SLURM and Kubernetes answer."""
    slurm, kubernetes = _slurm(), _kubernetes()
    return Finding((("SLURM", slurm), ("Kubernetes", kubernetes)), {"slurm": slurm, "kubernetes": kubernetes})


def _slurm() -> str:
    """Return the partitions of SLURM, with their state, number of nodes and generic resources, or why there are none."""
    if shutil.which("sinfo") is None:
        return "sinfo is not on the PATH"
    command = ["sinfo", "--noheader", "--format", "%P %a, %D nodes, %G"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"sinfo does not answer: {type(error).__name__}"
    if answer.returncode:
        return f"sinfo fails: {redacted(answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else str(answer.returncode))}"
    return "; ".join(line.strip() for line in answer.stdout.splitlines()) or "sinfo lists no partition"


def _kubernetes() -> str:
    """Return the address of the Kubernetes API, and whether it takes connections."""
    listed = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or "~/.kube/config"
    path, host = Path(listed).expanduser(), os.environ.get("KUBERNETES_SERVICE_HOST")
    if host:
        server = f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
    elif path.is_file():
        stated = re.search(
            r"^\s*server:\s*[\"']?(\S+?)[\"']?\s*$", path.read_text(errors="replace"), re.MULTILINE
        )
        if stated is None:
            return f"{path} names no server"
        server = stated[1]
    else:
        return f"no kubeconfig: {path} is not there"
    url = urlsplit(server)
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=ANSWER_S).close()
    except (OSError, ValueError) as error:
        return f"{redacted(server)} does not answer: {error}"
    return f"{redacted(server)} takes connections"
