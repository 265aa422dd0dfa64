"""Runs that go on on another kind of device. A checkpoint of a GPU is made by hand, from one of the CPU."""

import numpy as np
import pytest
import torch

import inrkit

QUICK = {
    "network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1},
    "steps": 6,
    "every": 3,
    "compile": "never",
    "precision": "float32",
}
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)


class StopAt(inrkit.Listener):
    def on_step(self, member, selected):
        if member.step == 3:
            member.stop()


def begun_on_a_gpu(folder, **options):
    """A run interrupted at its third step, whose checkpoint says what one of a GPU would."""
    run = inrkit.fit(PIXELS, out=folder, callbacks=[StopAt()], **{**QUICK, **options})
    file = folder / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    philox = torch.arange(16, dtype=torch.uint8)  # a CUDA generator's state has 16 bytes: its seed and its offset
    state |= {"device": "cuda", "random": {**state["random"], "cuda": philox}, "visits": philox}
    state["selector"]["generator"] = philox
    torch.save(state, file)
    written = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(written.replace("device: cpu", "device: cuda"))
    return run


def resumed(folder, **options):
    return inrkit.fit(PIXELS, out=folder, resume=True, device="cpu", **{**QUICK, **options})


def weights(run):
    return torch.cat([value.reshape(-1) for value in run.field.network.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize("selector", inrkit.SELECTORS.names())
def test_a_fit_begun_on_a_gpu_goes_on_on_the_cpu(tmp_path, selector):
    begun_on_a_gpu(tmp_path / "run", selector=selector, device="cpu")
    run = resumed(tmp_path / "run", selector=selector)
    assert run.result["status"] == "done" and run.result["steps"] == 6
    assert run.result["device"] == "cpu"
    assert [row["step"] for row in run.history] == [3, 6]


def test_where_nothing_is_drawn_a_moved_fit_ends_as_any_other(tmp_path):
    whole = inrkit.fit(PIXELS, out=tmp_path / "whole", selector="full", device="cpu", **QUICK)
    begun_on_a_gpu(tmp_path / "run", selector="full", device="cpu")
    assert torch.equal(weights(resumed(tmp_path / "run", selector="full")), weights(whole))


def test_a_fit_of_tiles_moves_too(tmp_path):
    options = {"network": {"name": "tiles", "counts": [2, 2]}, "selector": {"name": "evos", "survival": "proportional"}}
    begun_on_a_gpu(tmp_path / "run", device="cpu", **options)
    assert resumed(tmp_path / "run", **options).result["status"] == "done"


def test_draws_after_a_move_follow_from_the_seed_and_the_step(tmp_path):
    ends = []
    for name in ("one", "other"):
        begun_on_a_gpu(tmp_path / name, selector="uniform", device="cpu")
        ends.append(weights(resumed(tmp_path / name, selector="uniform")))
    assert torch.equal(*ends)
    begun_on_a_gpu(tmp_path / "seeded", selector="uniform", device="cpu", seed=1)
    assert not torch.equal(weights(resumed(tmp_path / "seeded", selector="uniform", seed=1)), ends[0])


def test_a_moved_fit_says_so_in_one_line_before_it_goes_on_and_in_its_result(tmp_path, monkeypatch, capsys):
    begun_on_a_gpu(tmp_path / "run", device="cpu")
    monkeypatch.setenv("COLUMNS", "300")
    run = inrkit.fit(PIXELS, out=tmp_path / "run", resume=True, quiet=False, **{**QUICK, "device": "cpu"})
    said = "from step 3 on cpu, until then on cuda: the result is not bit for bit that of an uninterrupted fit"
    assert run.result["notes"][0] == said
    assert capsys.readouterr().err.count(said) == 1
    assert "device: cpu" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_move_is_remembered_over_a_second_interruption(tmp_path):
    begun_on_a_gpu(tmp_path / "run", device="cpu")
    stop = StopAt()
    stop.on_step = lambda member, selected: member.stop() if member.step == 5 else None
    inrkit.fit(PIXELS, out=tmp_path / "run", resume=True, callbacks=[stop], **{**QUICK, "device": "cpu"})
    run = resumed(tmp_path / "run")
    assert [note for note in run.result["notes"] if "until then on cuda" in note] == run.result["notes"][:1]


def test_a_checkpoint_holds_the_generators_of_torch_of_tiles_and_of_the_selector(tmp_path):
    inrkit.fit(PIXELS, out=tmp_path / "run", callbacks=[StopAt()], device="cpu", **QUICK)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["device"] == "cpu" and set(state["random"]) == {"cpu"}
    for each in (state["random"]["cpu"], state["visits"], state["selector"]["generator"]):
        torch.Generator().set_state(each)
