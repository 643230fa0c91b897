"""Starting Ray: what is refused, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddnl_ray.errors import FaultError, RequestError
from ddnl_ray.sweep.runtime import ENVIRONMENT, _faults_named, protect_token, ray_session

pytestmark = pytest.mark.ray


def test_a_missing_token_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    with (
        pytest.raises(
            RequestError, match=rf"^RAY_AUTH_TOKEN_PATH names {tmp_path / 'nowhere'}, which is missing or empty"
        ),
        ray_session(None, 1, 0, tmp_path / "ray.log"),
    ):
        pass


def test_a_users_own_settings_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RequestError), ray_session(None, 1, 0, tmp_path / "ray.log"):
        pass
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_the_token_is_hidden_from_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    protect_token()
    assert not (tmp_path / "token").exists()
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o644)
    protect_token()
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


class Exceptions:
    """Ray's exceptions, as far as they matter here."""

    class RayError(Exception): ...

    class RayTaskError(RayError):
        def __init__(self, cause: Exception) -> None:
            self.cause = cause

    class NodeDiedError(RayError): ...


class Ray:
    exceptions = Exceptions


def test_a_lost_node_is_a_message_that_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match=r"lost what a task needed \(NodeDiedError\).*run the same command.*ray.log"):
        with _faults_named(Ray, tmp_path / "ray.log"):
            raise Exceptions.NodeDiedError


@pytest.mark.parametrize("cause", [RequestError("wrong"), OSError(28, "No space left on device")])
def test_our_own_error_in_a_task_is_raised_as_it_is(tmp_path: Path, cause: Exception) -> None:
    with pytest.raises(type(cause)) as raised, _faults_named(Ray, tmp_path / "ray.log"):
        raise Exceptions.RayTaskError(cause)
    assert raised.value is cause


def test_a_bug_in_a_task_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(Exceptions.RayTaskError), _faults_named(Ray, tmp_path / "ray.log"):
        raise Exceptions.RayTaskError(KeyError("bug"))
