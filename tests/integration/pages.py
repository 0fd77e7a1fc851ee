"""Carries out the code of a page of the documentation: its Python, its files and its commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

HOWTO = Path(__file__).parents[2] / "docs" / "howto"

# A ceiling, not an expectation.
WITHIN_S = 900


def blocks(page, language):
    """The blocks of code of a page in a language."""
    text = (HOWTO / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page):
    """The shell commands of a page, in their order."""
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


def on_free_ports(toml):
    """A run.toml whose dashboard takes any free port."""
    return toml.replace("workers = 2\n", 'workers = 2\ndashboard_address = "127.0.0.1:0"\n')


def call(line, folder):
    """Run a command of a page in a folder, and return what it printed; `galbatch` is this one."""
    word, *others = shlex.split(line)
    argv = [sys.executable, *(["-m", word] if word == "galbatch" else []), *others]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout
