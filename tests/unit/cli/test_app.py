"""The command line as a newcomer meets it."""

import os
import re
import signal
import subprocess
import sys
from typing import get_args

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from galbatch import __version__, cluster, models
from galbatch.cli import app as cli
from galbatch.config import Stage
from galbatch.errors import UsageError
from galbatch.simulation import POPULATIONS

KINDS = f"{', '.join(list(cluster.KINDS)[:-1])} or {list(cluster.KINDS)[-1]}"


def run_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "galbatch", *arguments], capture_output=True, text=True, timeout=600
    )


def commands(command=None, name="galbatch"):
    command = command or typer.main.get_command(cli.app)
    if hasattr(command, "commands"):
        return [pair for key, child in command.commands.items() for pair in commands(child, f"{name} {key}")]
    return [(name, command)]


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_has_help(name, command):
    assert command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_commands_of_the_design_are_there():
    names = {name.removeprefix("galbatch ") for name, _ in commands()}
    assert names >= {
        "demo", "simulate", "plan", "run", "status", "clean", "verify", "report", "browse", "cone", "draws",
        "show", "columns", "flags", "cutout",
        "models list", "models show", "models train", "objects check",
        "models convert gampen", "models convert sfnet", "models convert script",
    }  # fmt: skip


def help_of(name, option):
    """Help text of an option, by the name of its parameter."""
    return next(p.help for p in dict(commands())[name].params if p.name == option)


@pytest.mark.parametrize(
    ("name", "option", "known"),
    [
        ("galbatch run", "stage", get_args(Stage)),
        ("galbatch simulate", "population", POPULATIONS),
        ("galbatch models train", "architecture", models.RECIPES),
        ("galbatch models train", "population", POPULATIONS),
        ("galbatch models calibrate", "simulate", POPULATIONS),
        ("galbatch models convert sfnet", "target", models.SFNET_TARGETS),
    ],
)
def test_helps_name_all_that_there_are(name, option, known):
    """Help texts are written out, because the registries take seconds to import."""
    assert all(re.search(rf"\b{one}\b", help_of(name, option)) for one in known)


def test_help_waits_for_nothing_heavy():
    """Commands import what they need when they are called: help and version are there at once."""
    heavy = [
        "torch",
        "dask",
        "distributed",
        "zarr",
        "astropy",
        "pyarrow",
        "pandas",
        "matplotlib",
        "galsim",
        "pydantic",
    ]
    code = (
        "import sys; from typer.testing import CliRunner; from galbatch.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr


def test_version():
    assert run_cli("--version").stdout.strip() == f"galbatch {__version__}"


def test_errors_go_to_stderr_without_traceback_unless_debug(tmp_path):
    missing = str(tmp_path / "run.toml")
    plain = run_cli("plan", missing)
    assert plain.returncode == 2
    assert plain.stdout == ""
    assert plain.stderr.startswith("galbatch: ")
    assert "cannot be read: No such file or directory" in plain.stderr
    assert "Traceback" not in plain.stderr
    assert "Traceback" in run_cli("--debug", "plan", missing).stderr


GAMPEN = (
    *("--weights", "nowhere.pt", "--scaling", "scaling", "--slug", "balanced-dev2"),
    *("--dropout", "4e-4", "--band", "g", "-o", "g.pt"),
)


SFNET = ("--weights", "nowhere.pth", "--mean", "0.1,0.2", "--std", "1,1,1", "-o", "s.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "convert", "gampen", "--weights", "g.pt"], "Missing option"),
        (["models", "convert", "gampen", *GAMPEN], "nowhere.pt: there is no such file of weights"),
        (
            ["models", "convert", "sfnet", *SFNET],
            "--mean 0.1,0.2: expected three numbers, red, green, blue; found 2",
        ),
        (["run", "run.toml", "--stage", "everything"], "expected ingest, photometry, infer or all"),
        (
            ["models", "calibrate", "a.pt", "--beside", "b.pt"],
            "galbatch: --beside: renamed; write --compare-with\n",
        ),
        (["models", "calibrate", "a.pt", "--beside=b.pt"], "--beside: renamed; write --compare-with"),
        (["rum"], "No such command"),
        (["run"], "Missing argument"),
        (["cone", "nowhere", "10", "0", "-5"], "RADIUS_ARCSEC"),
        (["cone", "nowhere", "10", "0", "5"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["models", "show", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what(arguments, message):
    done = run_cli(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--scheduler", "tcp://a:1", "--cluster", "local"],
            "--cluster local starts workers: give one of them",
        ),
        (["--cluster", "scheduler"], "name its address"),
        (["--cluster", "cuda"], f"expected {KINDS}"),
        (["--cluster", "kubernetes"], "kind = 'kubernetes' starts pods of an image: name it"),
        (["--cluster", "local-cuda"], "[cluster] kind = 'local-cuda': dask-cuda is not installed here"),
    ],
)
def test_workers_that_cannot_be_had_are_refused_before_inputs_are_looked_at(
    tmp_path, monkeypatch, options, message
):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    run_toml = tmp_path / "run.toml"
    run_toml.write_text(
        '[survey]\nlayout = "hsc"\ntiles = "nowhere"\nbands = ["g"]\n[objects]\npath = "nowhere.parquet"\n'
        '[[models]]\nname = "gampen"\nbundle = "nowhere.pt"\n'
    )
    result = CliRunner().invoke(cli.app, ["run", str(run_toml), *options])
    assert isinstance(result.exception, UsageError)  # exit code 2
    assert message in str(result.exception)


def test_a_fault_of_disk_or_network_is_told_without_traceback(monkeypatch, capsys):
    def broken(**_):
        raise OSError(5, "Input/output error", "s3://tiles/a.fits")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(sys, "argv", ["galbatch", "plan", "run.toml"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        "galbatch: [Errno 5] Input/output error: 's3://tiles/a.fits'; disk or network failed: what is done stays, "
        "the same command continues from there\n"
    )


def stopped(*_, **__):
    raise KeyboardInterrupt


def converted(*_, **__):
    """As the compiler of pydantic's models makes its own error of a signal."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt as error:
        raise ValueError(f"error building a model: {error}") from None


@pytest.mark.parametrize("ends", [stopped, converted])
def test_who_stops_a_command_is_told_what_stays(ends, monkeypatch, capsys):
    monkeypatch.setattr("galbatch.models.demo_bundles", ends)
    monkeypatch.setattr(sys, "argv", ["galbatch", "models", "list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 75
    assert capsys.readouterr().err == (
        "galbatch: stopped; what is done stays, the same command continues from there\n"
    )


def test_a_command_that_says_itself_how_it_ends_is_believed(monkeypatch, capsys):
    def answered(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise typer.Exit(3) from None

    monkeypatch.setattr("galbatch.models.demo_bundles", answered)
    monkeypatch.setattr(sys, "argv", ["galbatch", "models", "list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_greek_letters_shows_a_card(encoding):
    """The card of the demo has letters that these encodings lack: they become question marks."""
    command = [sys.executable, "-m", "galbatch", "models", "show", "demo:gampen"]
    done = subprocess.run(
        command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout
