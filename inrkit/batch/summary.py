"""summary.md: what a study found, for people."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inrkit.batch.results import STATUSES, Results
from inrkit.batch.study import PATH, SEED, Job, Study
from inrkit.batch.tuning import best
from inrkit.errors import escaped
from inrkit.evaluation.metrics import METRICS

_FILES = 40
"""With up to so many files, each is listed by itself."""

Labels = tuple[Any, ...]


@dataclass(frozen=True)
class Layout:
    """How the jobs of a study are grouped.

    Args:
        rows: axes of the rows.
        columns: axes of the columns, one or none.
        tables: the other axes that vary; each combination of their values gets a table.
    """

    rows: list[str]
    columns: list[str]
    tables: list[str]

    @classmethod
    def of(cls, study: Study, jobs: Sequence[Job]) -> Layout:
        """The layout that the study asks for. Files, seeds and the tuned key make no groups: they are averaged over."""
        averaged = {PATH, SEED} | ({study.tune.key} if study.tune else set())
        varying = [axis for axis in study.columns if len({str(job.cell[axis]) for job in jobs}) > 1]
        columns = [study.table.columns] if study.table.columns else []
        free = [axis for axis in varying if axis not in averaged and axis not in columns]
        if not study.table.rows:
            return cls(free, columns, [])
        return cls([study.table.rows], columns, [axis for axis in free if axis != study.table.rows])

    @property
    def axes(self) -> list[str]:
        """All axes that make groups."""
        return [*self.tables, *self.rows, *self.columns]


def labels(job: Job, axes: Sequence[str]) -> Labels:
    """A job's labels of some axes."""
    return tuple(job.cell.get(axis) for axis in axes)


def grouped(jobs: Iterable[Job], axes: Sequence[str]) -> dict[Labels, list[Job]]:
    """The jobs by their labels of some axes, in order."""
    groups: dict[Labels, list[Job]] = {}
    for job in jobs:
        groups.setdefault(labels(job, axes), []).append(job)
    return groups


def measures(study: Study, results: Results) -> list[str]:
    """What the tables show: names of metrics, and `psnr@1000` for one at step 1000."""
    names = list(study.table.metrics)
    if not names:
        configs = [job.config for job in results.jobs if job.config is not None]
        names = list(dict.fromkeys([*(name for config in configs for name in config["metrics"]), "seconds"]))
    at = [f"{names[0]}@{step}" for step in study.table.at]
    return [*at, *names]


def summarise(study: Study, results: Results) -> str:
    """The text of summary.md."""
    jobs = [job for job in results.jobs if job.phase == "main"]
    counts = results.counts()
    listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    lines = [f"# {study.name}", "", f"{listed}."]
    done = [job for job in jobs if results.state(job).status == "done"]
    if done:
        lines += ["", "## Results", ""]
        lines += _results(study, results, done)
        lines += _by_file(study, results, done)
    lines += _tuning(study, results)
    failed = [job for job in results.jobs if results.state(job).status == "failed"]
    if failed:
        lines += ["", "## Failed", ""]
    for job in failed:
        log = f" (`{results.run(job).folder.relative_to(results.folder)}/log.txt`)" if job.id else ""
        lines.append(f"- {_escaped(job.title)}: {_escaped(results.state(job).error)}{log}")
    return "\n".join(lines) + "\n"


def _results(study: Study, results: Results, done: list[Job]) -> list[str]:
    """The tables of all groups, without their heading."""
    layout, names = Layout.of(study, done), measures(study, results)
    lines = [
        "Mean ± standard deviation over the n jobs of a group, that is over its files and seeds. The deviation "
        "includes the differences between files. The best mean is bold. Seconds are those of training, without "
        "evaluation.",
        "",
    ]
    values = {job.id: _measured(job, names, results) for job in done}
    if not study.table.metrics:  # some metrics are not defined for every file
        names = [name for name in names if any(name in had for had in values.values())]
    for table, inside in grouped(done, layout.tables).items():
        if table:
            lines += [
                "### " + ", ".join(f"{axis} = {label}" for axis, label in zip(layout.tables, table, strict=True)),
                "",
            ]
        lines += [*_table(study, layout, names, inside, values), ""]
    return lines[:-1]


def _table(
    study: Study, layout: Layout, names: list[str], jobs: list[Job], values: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """One table.

    Args:
        jobs: those in it.
        values: measures of each job, by identity and name.
    """
    rows, columns = list(grouped(jobs, layout.rows)), list(grouped(jobs, layout.columns))
    groups = grouped(jobs, [*layout.rows, *layout.columns])
    found: dict[tuple[Labels, Labels, str], list[float]] = {}
    counts: dict[Labels, set[int]] = {}
    for row, column in itertools.product(rows, columns):
        group = groups.get((*row, *column), [])
        if group:
            counts.setdefault(row, set()).add(len(group))
        for name in names:
            had = [values[job.id][name] for job in group if name in values[job.id]]
            # Unless every job reached the step there is no mean: it would compare different sets of jobs.
            found[row, column, name] = had if "@" not in name or len(had) == len(group) else []
    means = {place: statistics.fmean(had) for place, had in found.items() if had}
    cells: dict[tuple[Labels, Labels, str], str] = {}
    for column, name in itertools.product(columns, names):
        scores = {row: means[row, column, name] for row in rows if (row, column, name) in means}
        for row in rows:
            had = found[row, column, name]
            leads = len(scores) > 1 and had and scores[row] == scores[best(name.partition("@")[0], scores)]
            cells[row, column, name] = _spread(name, had, bold=bool(leads))
    head = [" ".join([*map(str, column), _title(name)]) for column, name in itertools.product(columns, names)]
    lines = _header([*(layout.rows or ["study"]), "n", *head])
    for row in rows:
        count = "–".join(map(str, sorted({min(counts[row]), max(counts[row])})))
        measured = [cells[row, column, name] for column, name in itertools.product(columns, names)]
        lines.append(_line([*(row or (study.name,)), count, *measured]))
        published = study.table.published.get(str(row[0])) if row else None
        if isinstance(published, dict):
            known = [published.get(str(column[0]), published) if column else published for column in columns]
            numbers = [_number(name, each.get(name)) for each, name in itertools.product(known, names)]
            lines.append(_line([f"{row[0]}, published", *[""] * len(row), *numbers]))
    return lines


def _by_file(study: Study, results: Results, done: list[Job]) -> list[str]:
    """A table of the first metric, a row for each file and a column for each group; none where it would be trivial."""
    files = list(dict.fromkeys(job.cell.get(PATH) for job in done))
    layout, name = Layout.of(study, done), next(name for name in measures(study, results) if "@" not in name)
    groups = list(grouped(done, layout.axes))
    if not (1 < len(files) <= _FILES and len(groups) > 1):
        return []
    cells = grouped(done, [PATH, *layout.axes])
    lines = ["", f"## {_title(name)} of each file", "", "Mean over seeds.", ""]
    lines += _header(["file", *(" ".join(map(str, group)) for group in groups)])
    values = {job.id: _measured(job, [name], results) for job in done}
    for file in files:
        scores: dict[Labels, float] = {}
        for group in groups:
            jobs = cells.get((file, *group), [])
            had = [values[job.id][name] for job in jobs if name in values[job.id]]
            if had:
                scores[group] = statistics.fmean(had)
        top = scores[best(name.partition("@")[0], scores)] if len(scores) > 1 else None
        numbers = [
            _bold(_number(name, scores.get(group)), top is not None and scores.get(group) == top) for group in groups
        ]
        lines.append(_line([file, *numbers]))
    return lines


def _tuning(study: Study, results: Results) -> list[str]:
    """A table of what each group scored with each value of the tuned key."""
    if study.tune is None:
        return []
    metric, key, tried = study.tune.metric, study.tune.key, study.tune.values
    axes = [axis for axis in study.columns if axis not in study.tuned_on and axis != key]
    jobs = [job for job in results.jobs if job.phase == "tune"]
    axes = [axis for axis in axes if len({str(job.cell[axis]) for job in jobs}) > 1]
    chosen = {labels(job, axes): job.cell[key] for job in results.jobs if job.phase == "main" and job.id}
    lines = ["", f"## {key} by tuning", "", f"Mean {_title(metric)} on {_on(study)}; the chosen value is bold.", ""]
    lines += _header([*(axes or ["study"]), *map(str, tried), "note"])
    for group, members in grouped(jobs, axes).items():
        means = []
        for value in tried:
            rows = [results.row(job) for job in members if job.cell[key] == value]
            had = [row[metric] for row in rows if row["status"] == "done" and row.get(metric) is not None]
            mean = _number(metric, statistics.fmean(had)) if had else "failed" if _ended(rows) else "–"
            means.append(_bold(mean, group in chosen and chosen[group] == value))
        edge = len(tried) > 1 and group in chosen and chosen[group] in (tried[0], tried[-1])
        lines.append(_line([*(group or (study.name,)), *means, "at the edge of the list" if edge else ""]))
    return lines


def _on(study: Study) -> str:
    """What stands for all values of an axis while tuning, in words."""
    return ", ".join(
        f"{axis} {' '.join(str(value.label) for value in values)}" for axis, values in study.tuned_on.items()
    )


def _ended(rows: list[dict[str, Any]]) -> bool:
    return bool(rows) and all(row["status"] in ("done", "failed") for row in rows)


def _measured(job: Job, names: Sequence[str], results: Results) -> dict[str, float]:
    """Those of the named measures that a job has."""
    row = results.row(job)
    found = {name: row[name] for name in names if row.get(name) is not None}
    wanted = [name for name in names if "@" in name]
    if wanted:
        history = {entry["step"]: entry for entry in results.history(job)}
        for name in wanted:
            metric, _, step = name.partition("@")
            entry = history.get(int(step), {})
            if metric in entry:
                found[name] = entry[metric]
    return found


def _spread(name: str, values: Sequence[float], bold: bool) -> str:
    if not values:
        return "–"
    mean = _bold(_number(name, statistics.fmean(values)), bold)
    return f"{mean} ± {_number(name, statistics.stdev(values))}" if len(values) > 1 else mean


def _number(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    metric = name.partition("@")[0]
    if metric == "seconds":
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    plugin = METRICS.find(metric)
    return f"{value:.2f}" if plugin is not None and plugin.unit else f"{value:.4f}"


def _title(name: str) -> str:
    metric, at, step = name.partition("@")
    plugin = METRICS.find(metric)
    title = (plugin.title if plugin is not None else "") or metric
    return f"{title} at {step}" if at else title


def _bold(text: str, wanted: bool) -> str:
    return f"**{text}**" if wanted and text != "–" else text


def _escaped(text: Any) -> str:
    """The text as Markdown shows it; a file's name may hold anything, even HTML."""
    return escaped(str(text)).replace("|", "\\|").replace("<", "&lt;")


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]
