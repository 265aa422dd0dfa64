"""Messages repeat names and values from anywhere, and stay readable lines."""

import pickle
import sys

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

import inrkit.cli
from inrkit import ConfigError, DataError
from inrkit.batch.summary import _line
from inrkit.errors import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("фото ♥ 図.png", "фото ♥ 図.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("gpj\u202egnp", r"gpj\u202egnp"),
        ("two\u2028lines", r"two\u2028lines"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_what_a_terminal_should_not_be_sent_is_escaped(text, shown):
    assert escaped(text) == shown
    assert escaped(shown) == shown
    assert str(DataError(f"{text} is empty")) == f"{shown} is empty"


def test_every_message_of_an_error_is_one_line():
    error = ConfigError("selector is 'a\nb'", "train.steps is 0")
    assert str(error).splitlines() == [r"selector is 'a\nb'", "train.steps is 0"]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_messages_are_bounded_and_keep_their_ends():
    told = str(DataError(f"{'x' * 10**6} does not exist; check the path"))
    assert len(told) < 1300 and told.startswith("xxx") and told.endswith("does not exist; check the path")
    lines = str(ConfigError(*(f"option {number} is wrong" for number in range(1000)))).splitlines()
    assert len(lines) < 60 and lines[0] == "option 0 is wrong" and lines[-1] == "and 950 more"


def test_a_name_is_text_in_a_studys_tables():
    assert _line(["<script>.png", "a|b\n.png"]) == "| &lt;script>.png | a\\|b\\n.png |"


def hidden(*_, **__):
    """Ctrl-C at a moment at which a library's own cleaning up fails."""
    try:
        raise KeyboardInterrupt
    finally:
        raise ConfigKeyError("'NoneType' object has no attribute '_invalidate_flags_cache'")


@pytest.mark.parametrize("where", [(OmegaConf, "merge"), (inrkit.cli.fit, "callback")])
def test_ctrl_c_that_an_error_hides_is_ctrl_c(where, monkeypatch, capsys):
    monkeypatch.setattr(*where, hidden)
    monkeypatch.setattr(sys, "argv", ["inrkit", "fit", "photo.png", "metrics=[psnr]"])
    with pytest.raises(SystemExit) as end:
        inrkit.cli.main()
    assert end.value.code == 130 and capsys.readouterr().err.strip() == "inrkit: stopped"
