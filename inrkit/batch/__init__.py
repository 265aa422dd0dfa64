"""Studies: many fits from one file, on a launcher."""

from inrkit.batch.engine import RUNNABLE, run_study
from inrkit.batch.launchers.base import LAUNCHERS, JobOptions, Launcher, Outcome, Started, Task
from inrkit.batch.packed import Packed, pack
from inrkit.batch.reader import read_study
from inrkit.batch.regions import fit_regions
from inrkit.batch.shipped import studies
from inrkit.batch.study import Job, Study

__all__ = [
    "LAUNCHERS",
    "RUNNABLE",
    "Job",
    "JobOptions",
    "Launcher",
    "Outcome",
    "Packed",
    "Started",
    "Study",
    "Task",
    "fit_regions",
    "pack",
    "read_study",
    "run_study",
    "studies",
]
