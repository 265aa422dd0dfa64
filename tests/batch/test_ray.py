"""Studies on a real Ray: several nodes on this machine, one of which is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file

from inrkit.batch import JobOptions
from inrkit.batch.launchers.ray import Ray, RayOptions
from inrkit.errors import ConfigError

STUDY = """
base: image
set:
  train.steps: 20
  log.every: 5
  checkpoint.seconds: 0
  network: {name: "slow:Slow", seconds: 0.2}
matrix:
  data.path: ["photos/*.png"]
  selector: [full, uniform]
"""

# A network that takes its time, so that a kill meets a job, that can hang, and that can hold memory.
SLOW = """
import dataclasses, time
import torch
from inrkit import HiddenLinear, Network

@dataclasses.dataclass
class Options:
    seconds: float = 0.0
    gibibytes: int = 0

class Slow(Network):
    Options = Options

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.first, self.last = torch.nn.Linear(dimensions, 8), torch.nn.Linear(8, channels)
        self.eaten = [torch.ones(2**28) for _ in range(options.gibibytes)]

    def forward(self, coordinates):
        time.sleep(self.options.seconds)
        return self.last(torch.sin(10 * self.first(coordinates)))
"""


def room(folder: Path, names: str = "ab", poison: bool = False) -> Path:
    """A folder with a study of two jobs a picture."""
    (folder / "photos").mkdir(parents=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{name}.png")
    if poison:
        (folder / "photos" / "poison.png").write_text("poison")
    (folder / "slow.py").write_text(SLOW)
    (folder / "study.yaml").write_text(STUDY)
    return folder


@contextlib.contextmanager
def study(folder: Path, *words: object):
    """The study in the background."""
    command = [sys.executable, "-m", "inrkit", "batch", "study.yaml", "--out", "out", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def ended(folder: Path, process: subprocess.Popen, code: int) -> str:
    """What a study said, once it has ended."""
    left = process.wait(timeout=120)
    said = (folder / "said").read_text()
    assert left == code, said
    assert "Traceback" not in said
    return said


def batch(folder: Path, *words: object, code: int = 0) -> str:
    with study(folder, *words) as process:
        return ended(folder, process, code)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]


def outcome(folder: Path) -> dict:
    """All that is measured of every job, and the weights of its field, by file and selector."""
    found = {}
    for row in rows(folder):
        path = folder / "out" / row["folder"] / "field.safetensors"
        weights = {name: tensor.tobytes() for name, tensor in load_file(path).items()} if path.exists() else None
        measured = [row.get(name) for name in ("status", "psnr", "ssim", "steps", "error")]
        found[row["data.path"], row["selector"]] = (*measured[:4], (measured[4] or "").rpartition("/")[2], weights)
    return found


def when(condition, process: subprocess.Popen) -> None:
    """Wait until a study has come so far."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def under_way(folder: Path) -> int:
    """How many jobs have been evaluated."""
    return len(list(folder.glob("out/runs/*/metrics.jsonl")))


def at_work(raylet: psutil.Process) -> list[psutil.Process]:
    """The processes of a node that perform a job."""
    found = []
    for child in raylet.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if "perform_on_node" in " ".join(child.cmdline()) else []
    return found


class Nodes:
    """Three nodes of a core each, the head among them."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        # By default, a node is known to be dead after a quarter of a minute.
        alert = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"include_dashboard": False, "_system_config": alert, **small}
        )
        self.nodes = [self.cluster.head_node, *(self.cluster.add_node(**small) for _ in range(2))]
        self.words = ("--launcher", "ray", "--address", self.cluster.address)

    def raylets(self) -> list[psutil.Process]:
        return [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in self.nodes]

    def kill(self, number: int) -> None:
        """Kill all of a node, the jobs on it included."""
        raylet = self.raylets()[number]
        for process in [*raylet.children(recursive=True), raylet]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.remove_node(self.nodes.pop(number), allow_graceful=False)


@pytest.fixture(scope="module")
def cluster():
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A study that local workers ran, undisturbed, with one thread each."""
    folder = room(tmp_path_factory.mktemp("local"), poison=True)
    batch(folder, "--workers", 2, code=1)
    return folder


@pytest.mark.slow
def test_a_lost_nodes_job_goes_on_elsewhere_and_the_study_equals_a_local_one(cluster, local, tmp_path):
    folder = room(tmp_path / "room", poison=True)
    with study(folder, *cluster.words) as process:
        when(lambda: under_way(folder) >= 3, process)
        cluster.kill(next(number for number, raylet in enumerate(cluster.raylets()) if number and at_work(raylet)))
        said = ended(folder, process, code=1)
    assert "4 done, 2 failed" in said
    assert said.count("is not an image") == 2
    assert "(raylet)" not in said
    assert outcome(folder) == outcome(local)
    logs = [path.read_text() for path in folder.glob("out/runs/*/log.txt")]
    assert any("from step" in log for log in logs)
    assert 7 <= sum(log.count("--- ") for log in logs) <= 8  # the node may have taken another one as it died


@pytest.mark.slow
def test_a_stopped_study_keeps_what_it_has_and_leaves_the_cluster_as_it_was(cluster, tmp_path):
    folder = room(tmp_path / "room", poison=True)
    with study(folder, *cluster.words, "--workers", 2) as process:
        when(lambda: under_way(folder) >= 2, process)
        process.send_signal(signal.SIGINT)
        ended(folder, process, code=130)
    assert sorted(row["status"] for row in rows(folder)) == ["interrupted"] * 2 + ["pending"] * 4
    for row in rows(folder)[:2]:
        assert 5 <= row["steps"] < 20
    assert not [child for raylet in cluster.raylets() for child in at_work(raylet)]


@pytest.mark.slow
def test_a_job_that_hangs_or_takes_too_much_memory_or_is_killed_fails_alone(cluster, tmp_path):
    folder = room(tmp_path / "room", names="a")
    (folder / "study.yaml").write_text(
        STUDY.replace("full, uniform", "uniform")
        + """
variants:
  kind:
    hangs: {network.seconds: 600}
    eats: {network.gibibytes: 2}
    killed: {train.steps: 500}
    plain: {}
"""
    )
    with study(folder, *cluster.words, "job.memory=1.5", "job.limit=40") as process:
        when(lambda: list(folder.glob("out/runs/*killed*/metrics.jsonl")), process)
        (log,) = folder.glob("out/runs/*killed*/log.txt")
        victims = [child for raylet in cluster.raylets() for child in at_work(raylet)]
        (victim,) = [child for child in victims if str(log) in [file.path for file in child.open_files()]]
        victim.kill()
        ended(folder, process, code=1)
    found = {row["kind"]: (row["status"], row["error"]) for row in rows(folder)}
    assert found == {
        "hangs": ("failed", "took longer than job.limit=40 s and was killed"),
        "eats": ("failed", "took more than job.memory=1.5 GiB and was killed"),
        "killed": ("failed", "its process was killed or crashed, as when memory runs out; see its log"),
        "plain": ("done", None),
    }


@pytest.mark.slow
def test_a_ray_of_its_own_ends_with_the_study_even_if_that_is_killed(local, tmp_path):
    folder = room(tmp_path / "room", poison=True)
    words = ("--launcher", "ray", "--workers", 2)
    with study(folder, *words) as process:
        when(lambda: under_way(folder) >= 2, process)
        children = psutil.Process(process.pid).children(recursive=True)
        assert {"raylet", "gcs_server"} <= {child.name() for child in children}
        process.kill()
        # Two agents of Ray that never see a job look for their head for a minute before they end.
        rest = [child for child in children if "Agent" not in child.name()]
        assert len(rest) >= len(children) - 2
        _, alive = psutil.wait_procs(rest, timeout=20)
        assert not alive
    with study(folder, *words) as process:
        when(lambda: "done " in (folder / "said").read_text(), process)
        children = psutil.Process(process.pid).children(recursive=True)
        ended(folder, process, code=1)
        assert not [child for child in children if child.is_running()]
    assert outcome(folder) == outcome(local)


@pytest.mark.slow
def test_a_job_that_no_node_has_room_for_is_refused(cluster):
    with pytest.raises(ConfigError, match=r"no node of the cluster has 3 cores and 2 GPUs .* lower launcher\.cpus"):
        Ray(RayOptions(address=cluster.cluster.address, cpus=3, gpus=2), JobOptions()).__enter__()


@pytest.mark.slow
def test_a_dry_run_counts_the_jobs_that_a_cluster_runs_at_a_time(cluster, tmp_path):
    said = batch(room(tmp_path / "room"), *cluster.words, "--dry-run")
    assert f"with {len(cluster.nodes)} workers" in said
    assert not (tmp_path / "room" / "out").exists()


def test_an_address_at_which_nobody_listens_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"launcher\.address=127\.0\.0\.1:1 cannot be reached: .*refused"):
        Ray(RayOptions(address="127.0.0.1:1"), JobOptions()).__enter__()


def test_without_ray_the_launcher_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'inrkit\[ray\]'"):
        Ray(RayOptions(), JobOptions())


@pytest.mark.slow
def test_a_lost_nodes_region_is_fitted_again_and_the_field_is_that_of_one_worker(cluster, tmp_path):
    pixels = np.random.default_rng(0).normal(128, 40, (400, 300, 3)).cumsum(0).cumsum(1)
    np.save(tmp_path / "signal.npy", (pixels % 256).astype(np.uint8))
    fit = [sys.executable, "-m", "inrkit", "fit", "signal.npy", "base=image", "train.steps=400", "log.report=false"]
    fit += ["regions.values=100000", "checkpoint.seconds=0.5"]
    with subprocess.Popen(
        [*fit, *cluster.words, "--out", "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        victims: list[int] = []

        def at_work_elsewhere() -> bool:
            begun = len(list(tmp_path.glob("run/regions/*/checkpoint.pt"))) >= 2
            victims[:] = [number for number, raylet in enumerate(cluster.raylets()) if number and at_work(raylet)]
            return begun and bool(victims)

        when(at_work_elsewhere, process)
        cluster.kill(victims[0])
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = [*fit, "--workers", "1", "--out", "alone"]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True, env=environment, timeout=300)
    fields = [(tmp_path / name / "field.safetensors").read_bytes() for name in ("run", "alone")]
    assert fields[0] == fields[1]
