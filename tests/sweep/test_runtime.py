"""Starting Ray: what is refused, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddnl_ray.errors import RequestError
from ddnl_ray.sweep.runtime import ENVIRONMENT, protect_token, ray_session

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
