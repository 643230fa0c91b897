"""Commands that open a run in another tool: dashboard."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click

HOST = "127.0.0.1"


@click.command("dashboard")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
def dashboard_command(run: Path, port: int) -> None:
    """Open the studies of a run in Optuna's dashboard, for this machine alone; ctrl-C ends it.

    Needs the extra dash. It shows a copy of the studies: the run's results stay as they are, whatever is done there.

    \b
    Example:  ddnl dashboard runs/tune-tad --port 8080
    """
    storage = _studies(run)
    serve = _server()
    free = _free_port(port)
    click.echo(f"{len(storage.get_all_studies())} studies of {run}: http://{HOST}:{free}  (ctrl-C ends it)")
    serve(storage, host=HOST, port=free)


def _studies(run: Path) -> Any:
    """Return the studies of a run, read into memory so that nothing can change the run's own file.

    Raises:
        RequestError: It is no run folder, or it has no studies that can be read.
    """
    from ddnl_ray.errors import RequestError

    journal = run / "studies.journal"
    if not (run / "sweep.yaml").is_file():
        raise RequestError(f"{run} is not a run folder: it has no sweep.yaml; name the folder that `ddnl sweep` made")
    if not journal.is_file():
        raise RequestError(
            f"{run} has no studies: studies.journal is written when a sweep with a `search` section ends or is "
            "interrupted; for a run without one, see `ddnl report`"
        )
    storage = _copy(journal)
    if not storage.get_all_studies():
        raise RequestError(f"{journal} holds no study yet; wait for the sweep to end, or run the same command again")
    return storage


def _copy(journal: Path) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    from ddnl_ray.errors import RequestError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    memory = optuna.storages.InMemoryStorage()
    try:
        written = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        for study in written.get_all_studies():
            number = memory.create_new_study(study.directions, study.study_name)
            for trial in written.get_all_trials(written.get_study_id_from_name(study.study_name)):
                memory.create_new_trial(number, template_trial=trial)
    except (ValueError, KeyError) as error:  # half a line, or not a journal
        raise RequestError(
            f"{journal} cannot be read ({error}); run the same sweep command to make it again"
        ) from error
    return memory


def _server() -> Any:
    """Return the function that serves a dashboard until it is interrupted.

    Raises:
        RequestError: The package is not installed.
    """
    from ddnl_ray.errors import RequestError

    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise RequestError(
            "the dashboard needs the package optuna-dashboard; install it with  pip install 'ddnl-ray[dash]'"
        ) from error
    return run_server


def _free_port(port: int) -> int:
    """Return ``port`` if it is free, and any free one for 0.

    Raises:
        RequestError: Another program listens there, or this user may not.
    """
    from ddnl_ray.errors import RequestError

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            reason = error.strerror
            raise RequestError(
                f"port {port} of {HOST} cannot be used ({reason}); choose another with --port, or --port 0"
            ) from error
        return int(trial.getsockname()[1])
