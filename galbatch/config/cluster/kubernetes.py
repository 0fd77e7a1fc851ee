"""The [cluster.kubernetes] section: the pods that a run asks for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from galbatch.config.strict import Section

__all__ = ["KubernetesConfig"]

Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""An amount of memory as Kubernetes writes it, such as 16Gi."""

DnsName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
"""The name of an object of Kubernetes; or empty."""

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

MountPath = Annotated[str, Field(pattern=r"^/[^:]+$")]


class KubernetesConfig(Section):
    """The [cluster.kubernetes] section: the pods of kind kubernetes."""

    image: str = Field(
        min_length=1,
        max_length=4096,
        description="image of the scheduler and of all workers, with the same galbatch as here; deploy/Dockerfile makes one",
    )
    namespace: DnsName = Field(
        "", description="namespace of the pods; empty: that of the current context of kubectl, or of this pod"
    )
    memory: Quantity = Field("16Gi", description="memory of a worker's pod, asked for and its limit")
    cpus: int = Field(
        4,
        ge=1,
        le=1024,
        description="cores of the pod of a worker with a GPU, which computes with 2 to 4 threads; the others have one core and one thread",
    )
    cpu_workers: int = Field(
        0,
        ge=0,
        le=100_000,
        description='with device = "cuda": number of workers without a GPU, a second group, that cut for those with one',
    )
    cpu_memory: Quantity = Field("4Gi", description="memory of the pods of these cpu_workers")
    min_workers: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="adaptive: the operator keeps between so many and `[cluster] workers` of them, as the work asks for; empty: always "
        "`workers` (the cpu_workers stay as they are)",
    )
    service_account: DnsName = Field(
        "", description="service account of all pods; empty: the namespace's default"
    )
    env: dict[EnvironmentName, str] = Field(
        default={},
        description='environment of all pods, such as {AWS_DEFAULT_REGION = "us-east-1"}; no credentials: whoever may see the pods sees it',
    )
    secrets: tuple[DnsName, ...] = Field(
        (),
        description="Secrets of Kubernetes, each of whose keys is set in the environment of all pods: credentials of s3://",
    )
    volumes: dict[MountPath, DnsName] = Field(
        default={},
        description='persistent volume claims by the path at which all pods see them, such as {"/data" = "survey"}; the run must see '
        "inputs and outputs under the same paths",
    )
    node_selector: dict[str, str] = Field(
        default={}, description='labels of the nodes for the workers, such as {pool = "gpu"}'
    )
