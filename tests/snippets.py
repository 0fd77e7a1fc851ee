"""Blocks of code of the documentation's pages: which are run, which say that they are not, and how a page is carried out."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from galbatch.config import RunConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

RUN = (
    "README.md",
    "docs/getting_started.md",
    "docs/howto/frozen_encoder.md",
    "docs/howto/hsc_pdr3.md",
    "docs/howto/legacy_surveys.md",
    "docs/howto/lsst_dp1.md",
    "docs/howto/object_stores.md",
    "docs/howto/quality_cuts.md",
    "docs/howto/resuming.md",
    "docs/howto/slurm.md",
    "docs/howto/store_first.md",
    "docs/howto/systems/chronoflow.md",
    "docs/howto/systems/spectra.md",
    "docs/howto/transfer.md",
    "docs/reference/collection.md",
    "docs/reference/columns.md",
    "docs/reference/comparison.md",
    "docs/reference/draws.md",
    "docs/reference/priors.md",
    "docs/reference/python.md",
    "docs/reference/store.md",
)
"""Pages all of whose blocks are carried out by tests/integration, but for those that say why not."""

CODE = ("", "sh", "python", "toml")

BLOCK = re.compile(
    r"(?:^\*Not run by the tests: (?P<reason>[^*]+)\*\n\n)?(?:^`(?P<name>[\w.]+)`:\n\n)?^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

# A ceiling, not an expectation.
WITHIN_S = 900

# Sections that a fragment of run.toml may leave out, as the page has told them before.
USUAL = {
    "survey": '[survey]\nlayout = "hsc"\ntiles = "tiles"\nbands = ["g", "r", "i"]\n',
    "objects": '[objects]\npath = "objects.parquet"\n',
    "models": '[[models]]\nname = "usual"\nbundle = "demo:gampen"\n',
}


@dataclass(frozen=True)
class Block:
    """A block of code: its language, text, the file that it is said to be, and why it is not run, if so."""

    language: str
    text: str
    name: str | None
    reason: str | None

    @property
    def is_run_toml(self):
        """Whether it is a run.toml or a part of one: all of its tables are sections of the config."""
        if self.language != "toml" or self.reason:
            return False
        return set(tomllib.loads(self.text)) <= set(RunConfig.model_fields)

    @property
    def is_told(self):
        """Whether a reader sees that it is not run, or a test reads it without running a page."""
        return self.reason is not None or self.is_run_toml or self.language not in CODE


def pages():
    """Every page with blocks of code, as a path below the root; CHANGELOG and CONTRIBUTING have none for users."""
    found = [str(path.relative_to(ROOT)) for path in sorted(DOCS.rglob("*.md"))]
    return ["README.md", *(page for page in found if page != "docs/tutorial.md")]


def blocks_of(page):
    """The blocks of code of a page in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(m["language"], m["text"], m["name"], m["reason"]) for m in BLOCK.finditer(text)]


def completed(text):
    """A fragment of run.toml with the usual sections in place of those that it lacks."""
    has = tomllib.loads(text)
    return text + "".join(section for name, section in USUAL.items() if name not in has)


def call(line, folder, environment):
    """Carry out a line of shell; `galbatch` is this one. Return what it printed."""
    words = shlex.split(line, comments=True)
    argv = [sys.executable, *(["-m", *words] if words[0] == "galbatch" else words[1:])]
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def follow(page, folder, **replaced):
    """Carry out a page: write its files, run its commands, and its Python, whose names last to the end of the page.

    Returns
    -------
    list of str
        What each command printed, and last what all of its Python did.
    """
    environment, said, script = dict(os.environ), [], ""
    for block in blocks_of(page):
        text = block.text
        for old, new in replaced.items():
            text = text.replace(old, new)
        if block.reason or block.language not in CODE or (block.language == "toml" and not block.name):
            continue
        if block.language == "toml":
            free = text.replace("workers = 2\n", 'workers = 2\ndashboard_address = "127.0.0.1:0"\n')
            (folder / block.name).write_text(free)
        elif block.language == "python":
            script += text
        else:
            for line in filter(None, text.splitlines()):
                if line.startswith("export "):
                    environment |= dict(pair.split("=", 1) for pair in shlex.split(line)[1:])
                else:
                    said.append(call(line, folder, environment))
    if script:
        # Worker processes import the script: what it runs stands below the usual guard.
        body = "\n".join(f"    {line}" for line in script.splitlines())
        (folder / "page.py").write_text(f'if __name__ == "__main__":\n{body}\n')
        said.append(call("python page.py", folder, environment))
    return said
