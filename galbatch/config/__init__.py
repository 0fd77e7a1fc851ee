"""run.toml -> a validated, frozen config."""

from galbatch.config.run import *  # noqa: F403
