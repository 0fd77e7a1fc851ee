"""The doctor, a page on what this machine or cluster can do: each step runs in a process of its own and none stops the next.

`steps` lists them, most valuable first; each of the other files measures one subject and knows nothing of processes.
"""

from galbatch.doctor.findings import Finding, Step, StepResult
from galbatch.doctor.steps import MOST_S, SCHEMA, examine, steps_of

__all__ = ["MOST_S", "SCHEMA", "Finding", "Step", "StepResult", "examine", "steps_of"]
