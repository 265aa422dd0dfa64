import subprocess
import sys
from pathlib import Path

import pytest

from inrkit import ConfigError
from inrkit.plugins.registry import Registry


class Base:
    pass


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package with a good and a broken plug-in of the group `example.things`."""
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[example.things]\ngood = stranger_good:Thing\nbroken = stranger_broken:Thing\n"
    )
    (tmp_path / "stranger_good.py").write_text("class Thing: pass\n")
    (tmp_path / "stranger_broken.py").write_text("raise RuntimeError('I am broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_decorator_registers_what_is_imported():
    registry: Registry[Base] = Registry("thing", "example.nothing")

    @registry.register("one")
    class One(Base):
        pass

    assert registry.names() == ["one"]
    assert registry.get("one") is One


def test_two_classes_cannot_share_a_name():
    registry: Registry[Base] = Registry("thing", "example.nothing")
    registry.register("one")(type("First", (Base,), {}))
    with pytest.raises(ConfigError, match="another name"):
        registry.register("one")(type("Second", (Base,), {}))


def test_an_entry_point_is_loaded_only_when_its_name_is_asked_for(package):
    registry: Registry[Base] = Registry("thing", "example.things")
    assert registry.names() == ["broken", "good"]
    assert "stranger_good" not in sys.modules
    assert registry.get("good").__module__ == "stranger_good"
    assert "stranger_broken" not in sys.modules


def test_a_broken_plugin_is_named_and_breaks_nothing_else(package):
    registry: Registry[Base] = Registry("thing", "example.things")
    with pytest.raises(ConfigError, match=r"thing 'broken' of package stranger cannot be loaded: .*I am broken"):
        registry.get("broken")
    assert registry.get("good")


def test_a_target_works_where_a_name_does(package):
    registry: Registry[Base] = Registry("thing", "example.nothing")
    assert registry.get("stranger_good:Thing").__name__ == "Thing"
    with pytest.raises(ConfigError, match="cannot be loaded"):
        registry.get("stranger_good:Nothing")
    with pytest.raises(ConfigError, match="trust"):
        Registry("thing", "example.nothing").get("stranger_good:Thing", targets=False)
    assert registry.get("stranger_good:Thing", targets=False).__name__ == "Thing"


def test_an_unknown_name_suggests_the_nearest(package):
    with pytest.raises(ConfigError, match="did you mean 'good'"):
        Registry("thing", "example.things").get("godo")


def test_a_broken_modality_does_not_break_the_command_line(tmp_path):
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[inrkit.modalities]\nbroken = stranger_broken:Thing\n")
    (tmp_path / "stranger_broken.py").write_text("raise RuntimeError('I am broken')\n")
    done = subprocess.run(
        [sys.executable, "-m", "inrkit", "list", "modalities"],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "image " in done.stdout
    assert "broken  broken: modality 'broken' of package stranger cannot be loaded" in done.stdout


def test_a_module_in_the_present_folder_is_told_how_to_be_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_me.py").touch()
    with pytest.raises(ConfigError, match=r"beside_me\.py is in this folder, where `python -m inrkit` looks"):
        Registry("thing", "inrkit.things").get("beside_me:Thing")
