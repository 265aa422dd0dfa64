"""A training that is watched: the page grows, and nobody else sees it."""

import importlib.util
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import inrkit
from inrkit.cli import inrkit as command
from inrkit.modalities.image import sample_picture
from inrkit.reports.watch import Watch
from inrkit.runs.run import Run
from inrkit.training.member import Listener

_SPEC = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(browser)

SMALL = {"network": {"hidden_features": 16, "hidden_layers": 1}, "every": 2, "quiet": True, "steps": 6}


@pytest.fixture
def fitted(tmp_path):
    Image.fromarray(sample_picture(32)).save(tmp_path / "photo.png")
    return inrkit.fit(tmp_path / "photo.png", out=tmp_path / "plain", **SMALL)


@pytest.fixture
def watch(fitted):
    watch = Watch(fitted.config, Run(fitted.folder))
    with watch.serving():
        yield watch


def asked(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        return answer.read().decode()


def test_only_who_knows_the_token_sees_the_page(watch):
    root = watch.address.rpartition("/")[0].rpartition("/")[0]
    page = asked(watch.address)
    assert "photo.png" in page and "asks no server but" in page and "can be kept" not in page
    for address in (f"{root}/", f"{root}/guess/", f"{root}/guess/state.json", f"{watch.address}config.yaml"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            asked(address)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        asked(watch.address, Host="elsewhere.example")
    assert watch._server.server_address[0] == "127.0.0.1"


def test_the_address_is_told_once_the_fit_can_begin(fitted, tmp_path):
    keys = ["network.hidden_features=8", "network.hidden_layers=1", "train.steps=2", "log.report=false"]
    words = ["fit", str(tmp_path / "photo.png"), *keys, "--watch", "--out"]
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(command, [*words, str(tmp_path / "taken" / "run")])
    assert done.exit_code and "cannot be written" in str(done.exception or done.output)
    assert "watch it at" not in done.output
    done = CliRunner().invoke(command, [*words, str(tmp_path / "run")])
    assert done.output.count("watch it at http://127.0.0.1:") == 1


def test_a_fit_is_the_same_whether_it_is_watched_or_not(watch, fitted, tmp_path):
    run = inrkit.fit(tmp_path / "photo.png", out=tmp_path / "watched", callbacks=[watch], **SMALL)
    state = json.loads(asked(f"{watch.address}state.json"))
    assert (state["step"], state["share"]) == (6, 1.0)
    assert [row["psnr"] for row in state["rows"][:3]] == [row["psnr"] for row in run.history]
    assert state["picture"].startswith("data:image/png;base64,")
    one, other = run.field.network.state_dict(), fitted.field.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_page_grows_in_a_browser(watch, tmp_path):
    go = threading.Event()

    class Wait(Listener):
        def on_step(self, member, selected):
            if member.step == 4:
                go.wait(120)

    def fit():
        run = inrkit.fit(tmp_path / "photo.png", out=tmp_path / "watched", callbacks=[watch, Wait()], **SMALL)
        watch.conclude(run.result)

    thread = threading.Thread(target=fit)
    thread.start()
    try:
        with browser.opened(watch.address) as page:
            page.wait("document.querySelector('[data-watch-picture]').naturalWidth == 32")
            assert page.find("[data-watch-status]").text == "training"
            go.set()
            page.wait("document.querySelector('[data-watch-status]').textContent == 'done'")
            assert page.run("document.querySelector('[data-plot=watch]').data[0].x.slice(0, 3)") == [2, 4, 6]
            assert page.complaints() == []
            assert all(address.startswith(watch.address) for address in page.requests())
    finally:
        go.set()
        thread.join()
