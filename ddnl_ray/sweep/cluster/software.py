"""Rules about what the nodes run: this package, one version of Ray, an image that does not change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

from ddnl_ray.sweep.cluster.document import ClusterFile, mapping, sequence
from ddnl_ray.sweep.cluster.findings import Finding
from ddnl_ray.sweep.cluster.starting import HEAD, started

SETUP = ("setup_commands", "head_setup_commands", "worker_setup_commands")
SDKS = {"aws": "boto3", "gcp": "google-api-python-client"}

_PACKAGE = re.compile(
    r"\binstall\b[^;&|]*[\s'\"](?:-e\s+)?(?:\.|(?:[^\s'\"]*/)?ddnl[-_]ray)(?=[\s'\"\[=]|$)|\.venv/\.installed"
)
_RAY = re.compile(r"(?:^|[\s'\"])ray(?:\[[\w,-]*\])?(?:\s*(==|[<>=!~]=?|@)\s*([\w.*]+))?(?=[\s'\",;<>]|$)")
_RAY_IMAGE = re.compile(r"(?:^|/)ray(?:-ml|-llm)?:(\d+\.\d+\.\d+)")
_SIZE = re.compile(r"--shm-size[= ](\d+(?:\.\d+)?)([kmgb]?)b?\b", re.IGNORECASE)


def images(cluster: ClusterFile) -> list[tuple[str, str]]:
    """Return the container images, each with its place."""
    docker = mapping(cluster.document.get("docker"))
    found = [(f"docker.{key}", docker.get(key)) for key in ("image", "head_image", "worker_image")]
    for name, kind in cluster.node_types.items():
        image = mapping(kind.get("docker")).get("worker_image")
        found.append((f"available_node_types.{name}.docker.worker_image", image))
    return [(place, image) for place, image in found if isinstance(image, str)]


def check_package(cluster: ClusterFile) -> Iterator[Finding]:
    """Nodes have this package: by the setup commands, or in an image of its own."""
    commands = cluster.setup(*SETUP)
    if any(_PACKAGE.search(command) for _, command in commands) or any("ddnl" in image for _, image in images(cluster)):
        return
    yield Finding(
        "package",
        "fail",
        "setup_commands",
        "nothing installs ddnl-ray on the nodes, so every trial would fail; add `pip install -e .` in the copied "
        "repository, or use the image of cluster/Dockerfile",
    )


def check_ray_version(cluster: ClusterFile) -> Iterator[Finding]:
    """Nodes run the version of Ray that is installed here: nodes of different versions refuse each other."""
    here, pinned = version("ray"), False
    for place, command in cluster.setup(*SETUP):
        if not re.search(r"\bpip3?\s+install\b", command):
            continue
        for operator, wanted in _RAY.findall(command.partition("install")[2]):
            if operator == "==":
                pinned = True
                if wanted != here:
                    yield _differs(place, wanted, here)
    for place, image in images(cluster):
        tag = _RAY_IMAGE.search(image)
        if tag and tag[1] != here:
            yield _differs(place, tag[1], here)
    if not pinned and not images(cluster):
        yield Finding(
            "ray-version",
            "warn",
            "setup_commands",
            "the version of Ray is not fixed: a worker that starts next month could get another one than the head, and "
            f"be refused; install 'ray[default,tune]=={here}'",
        )


def _differs(place: str, wanted: str, here: str) -> Finding:
    message = f"it has Ray {wanted}, but {here} is installed here; use {here} in both places"
    return Finding("ray-version", "fail", place, message)


def check_images(cluster: ClusterFile) -> Iterator[Finding]:
    """Container images have a tag that does not move, and a shared memory that holds the object store."""
    for place, image in images(cluster):
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and (not tag or tag.startswith("latest")):
            yield Finding(
                "image-tag",
                "fail",
                place,
                f"{image} changes under you, and nodes that start later would get another one; name a version or a "
                "digest",
            )
    if not images(cluster):
        return
    options = " ".join(map(str, sequence(mapping(cluster.document.get("docker")).get("run_options"))))
    size = _SIZE.search(options)
    store = max((_bytes(start.options.get("--object-store-memory")) for start in started(cluster, HEAD)[0]), default=0)
    have = float(size[1]) * 1024 ** "bkmg".index((size[2] or "b").lower()) if size else 0
    if have < store or not size:
        yield Finding(
            "shm-size",
            "warn",
            "docker.run_options",
            "the container's shared memory does not hold the object store, which would be on disk, and slow; add "
            f"--shm-size={max(1, -(-store // 2**30))}g or more",
        )


def _bytes(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def check_sdk(cluster: ClusterFile) -> Iterator[Finding]:
    """The head can call its cloud."""
    sdk = SDKS.get(cluster.provider)
    if sdk is None or images(cluster):
        return
    if not any(sdk in command for _, command in cluster.setup("setup_commands", "head_setup_commands")):
        yield Finding(
            "cloud-sdk",
            "fail",
            "head_setup_commands",
            f"nothing installs {sdk} on the head, which starts workers with it; add `pip install {sdk}`",
        )
