"""Reading a cluster file: YAML that cannot run code, hide a value behind a second key, or fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ddnl_ray.errors import RequestError

MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
CLOUDS = ("aws", "gcp", "azure", "aliyun", "vsphere")


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file as Ray reads it; its accessors take any document and give nothing where the type is wrong.

    Attributes:
        document: The mapping that the file holds.
    """

    document: dict[str, Any]

    @property
    def provider(self) -> str:
        """The provider's type."""
        return str(mapping(self.document.get("provider")).get("type", ""))

    @property
    def is_cloud(self) -> bool:
        """Whether nodes cost money while they are up."""
        return self.provider in CLOUDS

    @property
    def head_type(self) -> str:
        """The name of the head's node type."""
        return str(self.document.get("head_node_type", ""))

    @cached_property
    def node_types(self) -> dict[str, dict[str, Any]]:
        """Every node type by name."""
        types = mapping(self.document.get("available_node_types"))
        return {str(name): mapping(kind) for name, kind in types.items()}

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        """The node types of workers."""
        return {name: kind for name, kind in self.node_types.items() if name != self.head_type}

    def commands(self, key: str) -> list[tuple[str, str]]:
        """Return the commands below a top-level key, each with its place."""
        return [
            (f"{key}[{index}]", command)
            for index, command in enumerate(sequence(self.document.get(key)))
            if isinstance(command, str)
        ]

    def setup(self, *keys: str) -> list[tuple[str, str]]:
        """Return the setup commands below the keys, and those of the node types."""
        found = [pair for key in keys for pair in self.commands(key)]
        for name, kind in self.node_types.items():
            for index, command in enumerate(sequence(kind.get("worker_setup_commands"))):
                if isinstance(command, str):
                    found.append((f"available_node_types.{name}.worker_setup_commands[{index}]", command))
        return found

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield every text with its place."""
        return ((place, value) for place, value in walk(self.document) if isinstance(value, str))


def mapping(value: Any) -> dict[Any, Any]:
    """Return the value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return the value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def walk(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is neither a mapping nor a list, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{place}[{index}]")
    else:
        yield place, value


def read_cluster(path: Path) -> ClusterFile:
    """Read a cluster file.

    Raises:
        RequestError: There is no such file, it is no YAML file, or it holds no mapping; or a key is there twice, or its
            anchors unfold to more than a cluster file can have.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise RequestError(
            f"{path} is not a .yaml file; `ddnl cluster check` reads what `ray up` reads (a Slurm script: `bash -n`)"
        )
    if not path.is_file():
        raise RequestError(f"cluster file {path} does not exist; `cluster/` holds the ones that ship with ddnl-ray")
    if path.stat().st_size > MAX_BYTES:
        raise RequestError(f"{path} has {path.stat().st_size} bytes; a cluster file has at most {MAX_BYTES}")
    try:
        document = _load(path.read_text(encoding="utf-8"))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise RequestError(f"{path} is not valid YAML: {reason}") from error
    if not isinstance(document, dict):
        raise RequestError(
            f"{path} must hold a mapping with cluster_name and provider, but holds {type(document).__name__}"
        )
    return ClusterFile(document)


def _load(text: str) -> Any:
    """Return the one document of a text; its nodes are checked before anything is made of them."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_small(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _require_small(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node unfolds to.

    Args:
        node: The node.
        sizes: Of the nodes that were seen; 0 while inside.

    Raises:
        RequestError: A key is there twice, or the anchors unfold to too much, or for ever.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise RequestError("an anchor holds itself; write it without anchors")
        return sizes[id(node)]
    sizes[id(node)] = 0
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _require_unique(node)
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    size = 1 + sum(_require_small(part, sizes) for part in inner)
    if size > MAX_VALUES:
        raise RequestError(f"it unfolds to more than {MAX_VALUES} values; write it without nested anchors")
    sizes[id(node)] = size
    return size


def _require_unique(node: yaml.MappingNode) -> None:
    """Refuse a key that is there twice."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise RequestError(
                f"the key {key.value!r} is in lines {lines[key.value]} and {line}, and Ray would take one of them; "
                "keep one"
            )
        lines[key.value] = line
