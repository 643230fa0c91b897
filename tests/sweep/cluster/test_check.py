"""Checking cluster files: what ships passes, and what is unsafe, dear or broken is found and named."""
# ruff: noqa: E501  # the table of bad files has one line per file

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddnl_ray.cli import main
from ddnl_ray.errors import RequestError
from ddnl_ray.sweep.cluster import Finding, check_cluster
from ddnl_ray.sweep.cluster.check import RULES, check_schema
from ddnl_ray.sweep.cluster.document import ClusterFile, read_cluster

CLUSTER = Path(__file__).parents[3] / "cluster"
SHIPPED = ["cluster.yaml", "gcp.yaml", "onpremises.yaml"]
ALLOWED = {"placeholder"}


@pytest.fixture(autouse=True)
def _first_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_UP_enable_autoscaler_v2", "0")


def document(name: str = "cluster.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return loaded


def findings(changed: dict[str, Any]) -> list[Finding]:
    return [finding for rule in RULES for finding in rule(ClusterFile(changed))]


def complaints(changed: dict[str, Any]) -> list[Finding]:
    return [finding for finding in findings(changed) if finding.rule not in ALLOWED]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_has_nothing_but_blanks_to_fill_in(name: str) -> None:
    found = check_cluster(CLUSTER / name)
    assert {finding.rule for finding in found} == ALLOWED
    assert {finding.severity for finding in found} == {"warn"}


@pytest.mark.parametrize("name", SHIPPED)
def test_blanks_that_are_filled_in_are_not_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(re.sub(r"REPLACE-[A-Z-]+", "filled-in", (CLUSTER / name).read_text()))
    assert check_cluster(tmp_path / "mine.yaml") == []


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_says_what_it_is_for_and_fixes_the_version_that_is_tested(name: str) -> None:
    text = (CLUSTER / name).read_text()
    assert text.startswith("# A cluster ")
    assert max(map(len, text.splitlines())) <= 120
    assert f"ray[default,tune]=={version('ray')}" in text


def test_on_premises_the_autoscaler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_UP_enable_autoscaler_v2")
    (found,) = complaints(document("onpremises.yaml"))
    assert (found.rule, found.severity) == ("onprem-autoscaler", "warn")


Change = Callable[[dict[str, Any]], None]


def replaced(key: str, old: str, new: str, item: int = 1) -> Change:
    """Replace a text in the last command below a key."""

    def change(cluster: dict[str, Any]) -> None:
        assert old in cluster[key][item]
        cluster[key][item] = cluster[key][item].replace(old, new)

    return change


def put(place: str, value: Any) -> Change:
    """Set, or with None delete, what stands at a dotted place."""

    def change(cluster: dict[str, Any]) -> None:
        *path, last = place.split("/")
        inner = cluster
        for part in path:
            inner = inner.setdefault(part, {})
        if value is None:
            del inner[last]
        else:
            inner[last] = value

    return change


def add(place: str, value: Any) -> Change:
    def change(cluster: dict[str, Any]) -> None:
        cluster[place] = [*cluster.get(place, []), value]

    return change


def mount(remote: str, local: str | None) -> Change:
    """Copy a file to the nodes; None: do not."""

    def change(cluster: dict[str, Any]) -> None:
        if local is None:
            del cluster["file_mounts"][remote]
        else:
            cluster["file_mounts"][remote] = local

    return change


def in_own_items(cluster: dict[str, Any]) -> None:
    """Export in one list item and start in another, which has a shell of its own."""
    stop, start = cluster["head_start_ray_commands"]
    export = re.search(r"export [^;]*", start)
    assert export is not None
    cluster["head_start_ray_commands"] = [stop, export[0], start.replace(export[0], "true")]


HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
NODE = "available_node_types/head/node_config"
GPU = "available_node_types/gpu/node_config"
SSH = [{"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
DOCKER = {"image": "me/ddnl-ray:0.1.0", "container_name": "ddnl", "run_options": ["--shm-size=24g"]}
SETUP = "cd ~/ddnl-ray && pip install -e . "

BAD: list[tuple[str, Change, str, str, str]] = [
    ("dashboard for all", replaced(HEAD, "--head", "--head --dashboard-host=0.0.0.0"), "dashboard-open", "fail", "runs code"),
    ("dashboard in the network", replaced(HEAD, "--head", "--head --dashboard-host 10.0.0.4"), "dashboard-open", "fail", "10.0.0.4"),
    ("head bound to all", replaced(HEAD, "--head", "--head --node-ip-address=0.0.0.0"), "open-address", "fail", "every network"),
    ("debugger", replaced(HEAD, "--head", "--head --ray-debugger-external"), "debugger-open", "fail", "shell"),
    ("no start command", put(HEAD, None), "head-start", "fail", "Ray's own default"),
    ("no start command of workers", put(WORKER, None), "worker-start", "fail", "Ray's own default"),
    ("head does not start", replaced(HEAD, "--head", ""), "head-start", "fail", "ray start --head"),
    ("worker without the head's address", replaced(WORKER, "--address=$RAY_HEAD_IP:6379", ""), "worker-start", "fail", "--address"),
    ("quote not closed", replaced(HEAD, "--head", "--head '"), "unreadable", "fail", "close the quote"),
    ("no token on the head", replaced(HEAD, "RAY_AUTH_MODE=token", ""), "token-mode", "fail", "not set"),
    ("no token on workers", replaced(WORKER, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"), "token-mode", "fail", "'disabled'"),
    ("token mode in another shell", in_own_items, "token-mode", "fail", "shell of its own"),
    ("token mode after the start", replaced(HEAD, "export RAY_AUTH_MODE=token", "sleep 0; export"), "token-mode", "fail", "not set"),
    ("token not copied", mount("~/.ray/auth_token", None), "token-file", "fail", "get-auth-token --generate"),
    ("token for all to read", replaced(WORKER, "chmod 600", "chmod 644"), "token-readable", "warn", "chmod 600"),
    ("usage statistics", replaced(HEAD, "RAY_USAGE_STATS_ENABLED=0", ""), "usage-statistics", "warn", "makers"),
    ("no store size", replaced(WORKER, "--object-store-memory=20000000000", ""), "object-store", "warn", "30 %"),
    ("store size with a unit", replaced(HEAD, "=20000000000", "=20GB"), "object-store", "fail", "number of bytes"),
    ("store too small", replaced(HEAD, "=20000000000", "=1000"), "object-store", "fail", "number of bytes"),
    ("no spill directory", replaced(HEAD, "--object-spilling-directory=$HOME/spill", ""), "spill-directory", "warn", "large disk"),
    ("all GPUs visible", replaced(WORKER, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1", ""), "gpu-visible", "warn", "no GPU"),
    ("no autoscaling", replaced(HEAD, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""), "autoscaling-config", "fail", "none will come"),
    ("ssh for all", put(f"{NODE}/SecurityGroupIds", None), "ssh-open", "fail", "0.0.0.0/0"),
    ("ssh to workers for all", put(f"{GPU}/SecurityGroupIds", []), "ssh-open", "fail", "0.0.0.0/0"),
    ("own rule for all", put("provider/security_group", {"IpPermissions": SSH}), "open-to-the-world", "fail", "203.0.113.7/32"),
    ("AWS key in a command", add("setup_commands", "export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE"), "secret", "fail", "AWS access key"),
    ("AWS secret in a command", add("setup_commands", "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENG"), "secret", "fail", "plain text"),
    ("token in a command", replaced(HEAD, "export", "export RAY_AUTH_TOKEN=0123456789abcdef;export"), "secret", "fail", "plain text"),
    ("password of a database", add("setup_commands", "echo postgres://me:hunter2@db/x"), "secret", "fail", "password"),
    ("credentials of the provider", put("provider/aws_credentials", {"aws_access_key_id": "abcdefghij"}), "secret", "fail", "plain text"),
    ("private key", put("metadata", {"key": "-----BEGIN OPENSSH PRIVATE KEY-----\nxyz"}), "secret", "fail", "private key"),
    ("hub token", add("setup_commands", "huggingface-cli login hf_abcdefghijklmnopqrstuv"), "secret", "fail", "Hugging Face"),
    ("bearer token", add("setup_commands", "curl -H 'Authorization: Bearer abcdef123456' x"), "secret", "fail", "bearer"),
    ("cloud keys copied", mount("~/.aws", "~/.aws"), "key-copied", "fail", "give nodes a role"),
    ("ssh key copied", mount("~/key", "~/.ssh/id_ed25519"), "key-copied", "fail", "give nodes a role"),
    ("no limit", put("max_workers", None), "max-workers", "fail", "no limit"),
    ("very many", put("max_workers", 100), "max-workers", "warn", "up to 100"),
    ("workers that stay", put("available_node_types/gpu/min_workers", 2), "min-workers", "warn", "2 of them"),
    ("min_workers at the top", put("min_workers", 1), "min-workers", "warn", "ignores it"),
    ("no idle timeout", put("idle_timeout_minutes", None), "idle-timeout", "fail", "when idle workers go back"),
    ("long idle timeout", put("idle_timeout_minutes", 600), "idle-timeout", "fail", "600 minutes"),
    ("long idle timeout of a type", put("available_node_types/gpu/idle_timeout_s", 7200), "idle-timeout", "fail", "7200 seconds"),
    ("full price", put(f"{GPU}/InstanceMarketOptions", None), "spot-workers", "warn", "MarketType: spot"),
    ("spot head", put(f"{NODE}/InstanceMarketOptions", {"MarketType": "spot"}), "spot-head", "fail", "on-demand"),
    ("trials on the head", put("available_node_types/head/resources", {}), "head-trials", "warn", "{CPU: 0}"),
    ("GPU trials on the head", put("available_node_types/head/resources", {"CPU": 0, "GPU": 1}), "head-trials", "warn", "{CPU: 0}"),
    ("stopped nodes", put("provider/cache_stopped_nodes", None), "stopped-nodes", "warn", "disks go on costing"),
    ("package missing", put("setup_commands", ["pip install 'ray[tune]==2.60.0'"]), "package", "fail", "cluster/Dockerfile"),
    ("Ray not fixed", put("setup_commands", [SETUP]), "ray-version", "warn", "not fixed"),
    ("Ray with a range", put("setup_commands", [f"{SETUP} 'ray[default]>=2.60'"]), "ray-version", "warn", "not fixed"),
    ("another Ray", put("setup_commands", [f"{SETUP} 'ray[default]==2.9.1'"]), "ray-version", "fail", "Ray 2.9.1"),
    ("latest image", put("docker", {**DOCKER, "image": "me/ddnl-ray:latest"}), "image-tag", "fail", "changes under you"),
    ("image without a tag", put("docker", {**DOCKER, "image": "host:5000/ddnl-ray"}), "image-tag", "fail", "digest"),
    ("image of another Ray", put("docker", {**DOCKER, "image": "rayproject/ray:2.9.1-gpu"}), "ray-version", "fail", "Ray 2.9.1"),
    ("small shared memory", put("docker", {**DOCKER, "run_options": ["--shm-size=1g"]}), "shm-size", "warn", "--shm-size=19g"),
    ("no shared memory", put("docker", {**DOCKER, "run_options": []}), "shm-size", "warn", "--shm-size=19g"),
    ("no SDK", put("head_setup_commands", None), "cloud-sdk", "fail", "pip install boto3"),
    ("unknown key", put("idle_timeout", 5), "ray-schema", "fail", "'idle_timeout' was unexpected"),
    ("node type without a configuration", put(GPU, None), "ray-schema", "fail", "'node_config' is a required"),
    ("unknown head type", put("head_node_type", "header"), "ray-schema", "fail", "head_node_type"),
    ("unknown provider", put("provider/type", "amazon"), "ray-schema", "fail", "amazon"),
    ("min above max", put("available_node_types/gpu/min_workers", 9), "ray-schema", "fail", "min_workers"),
    ("text for a number", put("max_workers", "four"), "ray-schema", "fail", "'four' is not of type 'integer'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "rule", "severity", "says"), BAD, ids=[case[0] for case in BAD])
def test_what_is_wrong_is_named(name: str, change: Change, rule: str, severity: str, says: str) -> None:
    changed = document()
    change(changed)
    found = [finding for finding in findings(changed) if (finding.rule, finding.severity) == (rule, severity)]
    assert found, complaints(changed)
    assert any(says in finding.message for finding in found), found
    assert all(finding.place for finding in found)


@pytest.mark.parametrize("secret", ["AKIAIOSFODNN7EXAMPLE", "hunter2-hunter2"])
def test_a_secret_is_not_repeated(secret: str) -> None:
    changed = document()
    changed["setup_commands"].append(f"export DB_PASSWORD={secret}")
    found = complaints(changed)
    assert {finding.rule for finding in found} == {"secret"}
    assert secret not in str(found)


UNCRITICAL = {
    "cluster_name": "Ray names it",
    "region": "Ray's default",
    "auth:": "Ray's default user is the same",
    "ssh_user": "Ray's default is the same",
    "min_workers: 0": "the default",
    "VolumeSize": "a smaller disk",
    "InstanceType": "the cloud refuses the node",
    "ImageId": "Ray's own image, or none",
    "IamInstanceProfile": "Ray's own profile",
    "~/ddnl-ray/": "pip finds nothing to install",
    "python3-venv": "the next command fails",
    "grep -qs": "only a convenience in a shell",
    "ray stop": "nothing runs there yet",
    ">-": "joins what follows",
    "resources: {}": "the next line is then refused, or the default",
    "head_setup_commands": "its command runs on every node",
}
"""Lines whose loss costs neither safety nor money: what a line holds, and what happens then."""


def test_deleting_any_line_that_matters_is_noticed(tmp_path: Path) -> None:
    lines = (CLUSTER / "cluster.yaml").read_text().splitlines(keepends=True)
    unnoticed = []
    for index, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        (tmp_path / "less.yaml").write_text("".join(lines[:index] + lines[index + 1 :]))
        try:
            found = check_cluster(tmp_path / "less.yaml")
        except RequestError:
            continue
        if {finding.rule for finding in found} <= ALLOWED:
            unnoticed.append(line)
    for line in unnoticed:
        assert any(part in line for part in UNCRITICAL), line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_at_any_place_is_read_without_a_crash(data: st.DataObject) -> None:
    changed = copy.deepcopy(document(data.draw(st.sampled_from(SHIPPED))))
    inner: Any = changed
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inner[key], dict | list) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = data.draw(JSON)
    assert all(finding.message for finding in findings(changed))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold a mapping"),
        ("- cluster_name: x", "holds list"),
        ("just text", "holds str"),
        ("a: 1\na: 2\n", "'a' is in lines 1 and 2"),
        ("provider:\n  type: aws\n  type: gcp\n", "'type' is in lines 2 and 3"),
        ("a:\n\tb: 1\n", "not valid YAML.*cannot start any token"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML.*single document"),
        ("a: !!python/object/apply:os.system [true]\n", "not valid YAML.*could not determine a constructor"),
        ("a: *nowhere\n", "not valid YAML.*undefined alias"),
        ("a: &a [*a]\n", "holds itself"),
        ("a: &a {b: *a}\n", "holds itself"),
        (BOMB, "unfolds to more than 20000 values"),
        (MERGES, "unfolds to more than 20000 values"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("? [a, b]\n: 1\n", "not valid YAML|must hold"),
        ("a: 2026-13-45\n", "not valid YAML"),
        ("a: " + "x" * 300_000, "300003 bytes"),
    ],
)
def test_files_that_are_no_cluster_file(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RequestError, match=says) as caught:
        read_cluster(tmp_path / "bad.yaml")
    assert str(tmp_path / "bad.yaml") in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"a: \xff\xfe\x00")
    with pytest.raises(RequestError, match="not valid YAML"):
        read_cluster(tmp_path / "bad.yaml")


def test_plain_anchors_are_read(tmp_path: Path) -> None:
    (tmp_path / "anchors.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\n")
    assert read_cluster(tmp_path / "anchors.yaml").document == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}


@pytest.mark.parametrize(
    ("name", "says"), [("nowhere.yaml", "does not exist"), ("slurm.sh", "not a .yaml file"), ("", "not a .yaml file")]
)
def test_what_cannot_be_checked_is_refused(name: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read_cluster(CLUSTER / name)


def test_what_ray_prints_is_kept_silent(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(check_schema(ClusterFile(document("gcp.yaml")))) == []
    assert capfd.readouterr() == ("", "")


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["ddnl", "cluster", "check", *words])
    try:
        main()
        code: Any = 0
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return int(code), said.out, said.err


def test_a_good_file_ends_with_0(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(CLUSTER / "cluster.yaml")
    code, out, err = run(capsys, monkeypatch, file)
    assert (code, err) == (0, "")
    assert out.endswith(f"{file}: 0 failed, 4 warnings\n")
    assert f"warn: {file}: available_node_types.head.node_config.ImageId: REPLACE-AMI is not filled in" in out


def test_a_bad_file_ends_with_2_and_json_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = document()
    changed["max_workers"] = None
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(changed))
    code, out, _ = run(capsys, monkeypatch, str(tmp_path / "bad.yaml"), "--json")
    said = json.loads(out)
    assert code == 2
    assert said["ok"] is False
    assert [finding["severity"] for finding in said["findings"]] == ["fail"] * 2 + ["warn"] * 4
    assert {"rule", "severity", "place", "message"} == set(said["findings"][0])


def test_no_cluster_file_ends_with_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run(capsys, monkeypatch, str(CLUSTER / "slurm.sh"))
    assert (code, out) == (2, "")
    assert "is not a .yaml file" in err
