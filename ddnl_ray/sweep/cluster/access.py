"""Rules about who gets in: the token, ssh, and secrets in plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ddnl_ray.sweep.cluster.document import ClusterFile, mapping, sequence
from ddnl_ray.sweep.cluster.findings import Finding
from ddnl_ray.sweep.cluster.starting import HEAD, WORKER

TOKEN = "~/.ray/auth_token"
WORLD = ("0.0.0.0/0", "::/0")

_SECRETS = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_|github_pat_)\w{16,}"),
    "a Hugging Face token": re.compile(r"\bhf_\w{16,}"),
    "a Google key": re.compile(r"\bAIza[\w-]{20,}|\bya29\.[\w-]{10,}"),
    "a password in an address": re.compile(r"\b\w+://[^\s/:@$]+:[^\s/@$]+@"),
    "a secret": re.compile(
        r"(?i)\b(?:\w+[_-])?(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)(?:[_-](?:id|key))?"
        r"\s*[=:]\s*['\"]?(?![$~/.'\"\s]|token\b|<)[^\s'\"]{6,}"
    ),
    "a bearer token": re.compile(r"(?i)\bbearer\s+(?!\$)[\w.~+/-]{8,}"),
}
_SECRET_NAME = re.compile(r"(?i)(?:password|passwd|secret|token|api_?key|access_?key|credentials?)(?:_?(?:id|key))?$")
_KEY_FILES = re.compile(
    r"(?:^|/)(?:\.aws|\.ssh|\.netrc|\.config/gcloud|\.kube|\.docker|id_(?:rsa|ed25519|ecdsa))(?:/|$)"
    r"|\.(?:pem|p12|ppk)$"
)
_PLACEHOLDER = re.compile(r"REPLACE-[A-Z0-9-]+")


def check_token(cluster: ClusterFile) -> Iterator[Finding]:
    """The token is copied to every node, and only its owner can read it there."""
    mounts = mapping(cluster.document.get("file_mounts"))
    if TOKEN not in mounts:
        yield Finding(
            "token-file",
            "fail",
            "file_mounts",
            f"the token is not copied to the nodes, so Ray would not start there; add `{TOKEN}: {TOKEN}`, and make it "
            "with `ray get-auth-token --generate`",
        )
    for key in (HEAD, WORKER):
        commands = [*cluster.commands(key), *cluster.setup("setup_commands")]
        if not any(re.search(r"\bchmod\s+0?[46]00\s.*\.ray", command) for _, command in commands):
            yield Finding(
                "token-readable",
                "warn",
                key,
                f"nothing makes the token readable by its owner alone; add `chmod 600 {TOKEN}` before `ray start`",
            )


def check_ssh(cluster: ClusterFile) -> Iterator[Finding]:
    """Ssh is not open to the world."""
    rules = mapping(mapping(cluster.document.get("provider")).get("security_group")).get("IpPermissions")
    for index, rule in enumerate(sequence(rules)):
        ranges = [*sequence(mapping(rule).get("IpRanges")), *sequence(mapping(rule).get("Ipv6Ranges"))]
        if any(value in WORLD for entry in ranges for value in mapping(entry).values()):
            yield Finding(
                "open-to-the-world",
                "fail",
                f"provider.security_group.IpPermissions[{index}]",
                "it admits the whole internet; name your own addresses, for example 203.0.113.7/32",
            )
    for name, kind in cluster.node_types.items():
        node = mapping(kind.get("node_config"))
        if cluster.provider == "aws" and not _groups(node):
            yield Finding(
                "ssh-open",
                "fail",
                f"available_node_types.{name}.node_config.SecurityGroupIds",
                "without a group of your own Ray makes one that admits ssh from 0.0.0.0/0; name a group that admits "
                "ssh from your address and everything from itself (cluster/README.md has the commands)",
            )
        if cluster.provider == "gcp" and not node.get("networkInterfaces"):
            yield Finding(
                "ssh-open",
                "warn",
                f"available_node_types.{name}.node_config.networkInterfaces",
                "the default network of a project admits ssh from 0.0.0.0/0; name a subnetwork whose firewall admits "
                "ssh from your address (cluster/README.md has the commands)",
            )


def _groups(node: dict[str, Any]) -> list[Any]:
    """Return the security groups of an AWS node."""
    found = sequence(node.get("SecurityGroupIds"))
    for interface in sequence(node.get("NetworkInterfaces")):
        found = [*found, *sequence(mapping(interface).get("Groups"))]
    return found


def check_secrets(cluster: ClusterFile) -> Iterator[Finding]:
    """No secret stands in the file, and no key is copied to the nodes; the message does not repeat it."""
    for place, text in cluster.texts():
        kinds = [kind for kind, pattern in _SECRETS.items() if pattern.search(text)]
        name = re.sub(r"\[\d+\]$", "", place).rpartition(".")[2]
        if not kinds and _SECRET_NAME.search(name) and not re.match(r"[$~/.<]|$", text) and "auth_token" not in place:
            kinds = ["a secret"]
        if kinds:
            yield Finding(
                "secret",
                "fail",
                place,
                f"it holds {kinds[0]} in plain text; take it out, make a new one, and give nodes a role (AWS instance "
                "profile, GCP service account) or a file that file_mounts copies",
            )
    for remote, local in mapping(cluster.document.get("file_mounts")).items():
        if any(_KEY_FILES.search(str(path)) for path in (remote, local)):
            yield Finding(
                "key-copied",
                "fail",
                f"file_mounts.{remote}",
                f"it copies {local}, which holds keys of yours, to every node; take it out, and give nodes a role",
            )


def check_placeholders(cluster: ClusterFile) -> Iterator[Finding]:
    """What only its owner can fill in is filled in."""
    places: dict[str, str] = {}
    for place, text in cluster.texts():
        for name in _PLACEHOLDER.findall(text):
            places.setdefault(name, place)
    for name, place in places.items():
        yield Finding("placeholder", "warn", place, f"{name} is not filled in yet; cluster/README.md says how")
