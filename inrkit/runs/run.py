"""Run: the folder that one fit leaves behind."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import warnings
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inrkit.config import Config, commented_yaml, read_yaml, resolve
from inrkit.errors import ConfigError, DataError, RunError
from inrkit.files import (
    append_text,
    bring_to_disk,
    claim,
    exclusive,
    expanded,
    from_json,
    remove_stale,
    require_file,
    to_json,
    write_text,
    written_whole,
)
from inrkit.runs.field import Field
from inrkit.runs.notebook import as_html, in_a_line
from inrkit.signals.modality import Modality

_CHECKPOINT_FORMAT = 4
_READABLE = (3, 4)
"""Formats of checkpoints that can be resumed; 3 is that of version 0.1.0."""
_OWN = ("config.yaml", "field.safetensors", "result.json", "metrics.jsonl", "checkpoint.pt", "compressed.jsonl")
"""A run's files, none of which can be made again from the others."""


class Run:
    """The files of one fit, made by `inrkit.fit` and read back by anyone.

    Args:
        folder: it holds, or will hold, config.yaml, metrics.jsonl, result.json, field.safetensors, checkpoint.pt and
            reconstruction.<suffix>.
        movable: whether the run may go to the next free folder if another fit has taken this one meanwhile.
    """

    def __init__(self, folder: str | Path, movable: bool = False) -> None:
        self.folder = Path(folder)
        self._movable = movable
        self._held = False
        self._field: Field | None = None
        """The field, if this process has fitted it."""

    def __repr__(self) -> str:
        return in_a_line(self.folder, self._shown)

    def _repr_html_(self) -> str:
        """For a notebook: the reconstruction, if it is a picture, and the result."""
        reconstruction = None
        with contextlib.suppress(OSError):
            reconstruction = self.reconstruction
        return as_html(self.folder, self._shown, reconstruction)

    @property
    def _shown(self) -> dict[str, Any]:
        """The result, always with a status, even if there is no result or it cannot be read."""
        try:
            result = self.result
            if result == {}:
                return {"status": "unfinished" if self.exists else "no run"}
            if "status" in result:
                return result
        except DataError:
            pass
        return {"status": "result.json is damaged"}

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.folder / "config.yaml").exists()

    @property
    def config(self) -> Config:
        """The run's resolved config.

        Raises:
            ConfigError: the folder holds no run.
        """
        path = self.folder / "config.yaml"
        if not path.exists():
            raise ConfigError(f"{self.folder} is not a run: it has no config.yaml; give the folder of a fit")
        return resolve([read_yaml(path)])

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json; empty while there is none."""
        path = self.folder / "result.json"
        if not path.exists():
            return {}
        try:
            require_file(path)
            result = from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged; remove it and --resume the run") from error
        if not isinstance(result, dict) or not _is_sound(result):
            raise DataError(f"{path} is damaged; remove it and --resume the run")
        return result

    @property
    def metrics(self) -> dict[str, float]:
        """The last evaluation's metrics.

        Raises:
            DataError: result.json is damaged.
        """
        try:
            return numbers_of(self.result.get("metrics", {}))
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self.folder / 'result.json'} is damaged; remove it and --resume the run") from error

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl, one per evaluation."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return []
        rows = []
        require_file(path)
        text = path.read_text(encoding="utf-8", errors="replace")
        # Text after the last line break is a row that was being written when the run was killed.
        for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
            try:
                row = from_json(line)
                rows.append({**numbers_of(row), "step": int(row["step"])})
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                raise DataError(f"{path} is damaged at line {number}; remove that line and try again") from error
        return rows

    @property
    def compressed(self) -> list[dict[str, Any]]:
        """The rows of compressed.jsonl, one for each file that this run was compressed to; see `inrkit.compress`.

        Raises:
            DataError: the file is damaged.
        """
        path = self.folder / "compressed.jsonl"
        if not path.exists():
            return []
        try:
            require_file(path)
            rows = [from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
            told: list[dict[str, Any]] = [{**numbers_of({**row, "file": 0}), "file": str(row["file"])} for row in rows]
            if any(not 0 <= row.get("bytes", 0) < math.inf for row in told):
                raise ValueError("bytes")
            return told
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged; remove it and compress again") from error

    def note_compressed(self, row: dict[str, Any]) -> None:
        """Add a row to compressed.jsonl: the file's name and numbers."""
        append_text(self.folder / "compressed.jsonl", to_json(row) + "\n")

    @property
    def field(self) -> Field:
        """The trained field.

        Raises:
            DataError: there is none, or it is damaged.
        """
        return self.load_field()

    def load_field(self, *, trust: bool = False) -> Field:
        """The trained field, as `field` is; of another process's run as `inrkit.load` reads it.

        Args:
            trust: whether a network may be named as `package.module:Name` and so imported.

        Raises:
            DataError: there is none, or it is damaged.
        """
        return self._field or Field.load(self.folder, trust=trust)

    @property
    def reconstruction(self) -> Path | None:
        """The reconstruction's file, if there is one."""
        return next(iter(sorted(self.folder.glob("reconstruction.*"))), None)

    def create(self, config: Config) -> None:
        """Make the folder and write config.yaml into it, which also checks that it can be written to.

        Raises:
            ConfigError: the folder cannot be made or written to.
        """
        text = commented_yaml(config.to_dict())
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                claim(self.folder / "config.yaml", text)
                return
            except OSError as error:
                if self.exists:  # if two fits begin at once, only one gets the folder
                    if not self._movable:
                        raise ConfigError(f"{self.folder} already holds a run; choose another --out") from error
                    self.folder = next_folder(config.data.path)
                    continue
                reason = error.strerror or error
                raise ConfigError(f"{self.folder} cannot be written: {reason}; choose another --out") from error

    def locked(self, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """Keep other fits out of the folder; the system ends the lock with this process, however that ends.

        What killed processes left half written is removed. Inside the context it may be entered again.

        Args:
            patience: seconds to wait for another fit to leave it.

        Raises:
            RunError: another fit is at work in it, or it cannot be written to.
        """
        return contextlib.nullcontext() if self._held else self._locked(patience)

    @contextlib.contextmanager
    def _locked(self, patience: float) -> Iterator[None]:
        busy = RunError(
            f"{self.folder} is being fitted by another process; wait for it, or start anew in another --out"
        )
        with exclusive(self.folder, busy, patience):
            self._held = True
            try:
                remove_stale(self.folder)
                yield
                remove_stale(self.folder)
            finally:
                self._held = False

    def rewrite_config(self, config: Config) -> None:
        """Write config.yaml anew: a resumed run may be given more steps."""
        write_text(self.folder / "config.yaml", commented_yaml(config.to_dict()))

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write metrics.jsonl anew."""
        write_text(self.folder / "metrics.jsonl", "".join(to_json(row) + "\n" for row in rows))

    def append_history(self, row: dict[str, float]) -> None:
        """Add a row to metrics.jsonl; `settle_history` waits until it is on the disk."""
        append_text(self.folder / "metrics.jsonl", to_json(row) + "\n", wait=False)

    def settle_history(self) -> None:
        """Wait until metrics.jsonl would survive a power cut."""
        bring_to_disk(self.folder / "metrics.jsonl")

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        write_text(self.folder / "result.json", to_json(result, indent=2) + "\n")

    def write_field(self, field: Field, modality: Modality, reconstruct: bool = True) -> None:
        """Write field.safetensors and, if `reconstruct`, the reconstruction."""
        field.save(self.folder / "field.safetensors")
        self._field = field
        self.write_reconstruction(field, modality, reconstruct)

    def write_reconstruction(self, field: Field, modality: Modality, reconstruct: bool = True) -> None:
        """Write the reconstruction, or remove that of an earlier field if there is to be none."""
        if not reconstruct:
            for earlier in self.folder.glob("reconstruction.*"):  # of an earlier field
                earlier.unlink()
            return
        suffix = modality.reconstruction_suffix(field.metadata, field.dtype)
        with written_whole(self.folder / f"reconstruction{suffix}") as aside:
            modality.export(aside, field)

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write checkpoint.pt."""
        with written_whole(self.folder / "checkpoint.pt") as aside:
            try:
                torch.save({"format": _CHECKPOINT_FORMAT, **_in_main_memory(state)}, aside)
            except RuntimeError as error:  # torch raises this if the disk is full
                raise OSError(f"{error}".splitlines()[0]) from error

    def drop_checkpoint(self) -> None:
        """Remove checkpoint.pt, if there is one."""
        with contextlib.suppress(OSError):  # of no harm where it cannot be removed
            (self.folder / "checkpoint.pt").unlink()

    @property
    def has_progress(self) -> bool:
        """Whether it has something to go on from; one that was killed or failed early has nothing, and starts over."""
        if (self.folder / "checkpoint.pt").exists():
            return True
        return (self.folder / "result.json").exists() and self._shown["status"] != "failed"

    def read_checkpoint(self) -> dict[str, Any]:
        """The state in checkpoint.pt; runs no code from the file.

        Raises:
            DataError: it is missing or damaged.
        """
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            raise DataError(f"{self.folder} has no checkpoint.pt to resume from; start anew in another --out")
        try:
            require_file(path)
            if _compressed(path):
                raise ValueError("compressed")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch may raise anything at damaged bytes
            raise DataError(f"{path} is not a checkpoint, or is damaged; start anew in another --out") from error
        if not isinstance(state, dict) or state.get("format") not in _READABLE:
            raise DataError(f"{path} is not a checkpoint of this version of inrkit; start anew in another --out")
        if not all(_holds(tensor) for tensor in _tensors(state)):
            raise DataError(f"{path} promises more than it holds; start anew in another --out")
        return state


def _compressed(path: Path) -> bool:
    """Whether parts of a checkpoint are compressed, which torch does not do: they might take any memory."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist())


def _in_main_memory(state: Any) -> Any:
    """Nested plain containers with their tensors in main memory, so that a file of them can be read on any machine."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {name: _in_main_memory(each) for name, each in state.items()}
    return type(state)(_in_main_memory(each) for each in state) if isinstance(state, list | tuple) else state


def _holds(tensor: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are there; of one that is sparse or has no place most are not."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested plain containers."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for entry in state.values() if isinstance(state, dict) else state:
            yield from _tensors(entry)


def _is_sound(result: dict[str, Any]) -> bool:
    """Whether the entries of a result.json that are there are such as a run writes."""
    numbers = [result.get(name, {}) for name in ("metrics", "seconds")]
    counted = ("steps", "parameters", "coordinates", "recoveries", "regions", "workers")
    counts = [result.get(name, 0) for name in counted]
    words = [result.get(name, "") for name in ("status", "modality", "device", "precision", "error", "signal")]
    return (
        all(isinstance(entries, dict) for entries in [*numbers, result.get("versions", {})])
        and all(is_number(value) for entries in numbers for value in entries.values())
        and all(type(count) is int and 0 <= count < 1 << 63 for count in counts)
        and all(isinstance(word, str) for word in words)
        and isinstance(result.get("notes", []), list)
    )


def is_number(value: Any) -> bool:
    """Whether a value from standard JSON is a number that floats have, or null, which stands for infinity."""
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """Metrics as a file of JSON has them.

    Raises:
        ValueError, TypeError, AttributeError: they are none.
    """
    # JSON has no infinity, so null is an infinite PSNR; a training that diverges ends before it is evaluated.
    try:
        numbers = {name: math.inf if value is None else float(value) for name, value in row.items()}
    except OverflowError as error:
        raise ValueError("a number beyond all floats") from error
    if any(number != number or (math.isinf(number) and row[name] is not None) for name, number in numbers.items()):
        raise ValueError("a number beyond all floats")
    return numbers


def next_folder(path: str) -> Path:
    """`runs/<name>`, or `runs/<name>-2`, … if that is taken."""
    name = name_of(path)
    folder, number = Path("runs") / name, 1
    while os.path.lexists(folder):
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def name_of(path: str | Path) -> str:
    """What a run is called after its signal: the file's name without its suffix, all of it where that is `.nii.gz`."""
    named = Path(path)
    if named.suffix.lower() == ".gz":
        named = named.with_suffix("")
    return named.stem or "run"


def versions() -> dict[str, str]:
    """Versions of the software that a result depends on."""
    return {"inrkit": _installed("inrkit"), "torch": torch.__version__, "python": platform.python_version()}


@functools.cache
def _installed(package: str) -> str:
    return metadata.version(package)


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    trust: bool = False,
    network: nn.Module | None = None,
) -> Field:
    """A trained field, from a run's folder, a field.safetensors or a compressed field; see `Field.load`."""
    return Field.load(path, device=device, trust=trust, network=network)


def field_from(source: Field | Run | str | Path, *, trust: bool = False) -> Field:
    """The field of a run, or of its folder or file; a field as it is. Arguments and errors are those of `load`."""
    if isinstance(source, Field):
        return source
    return source.load_field(trust=trust) if isinstance(source, Run) else load(source, trust=trust)


def made_from(source: Field | Run | str | Path) -> list[Path]:
    """What a run, or a field's file, is read from and was fitted to: files not to be written over.

    Args:
        source: a run, its folder, a field's file, or a field, which is read from none.
    """
    if isinstance(source, Field):
        return []
    path = source.folder if isinstance(source, Run) else expanded(source)
    folder = path.parent if path.name == "field.safetensors" else path
    if not folder.is_dir():
        return [path]
    own = [folder / name for name in _OWN]
    try:
        data = read_yaml(folder / "config.yaml").get("data")
    except ConfigError:  # a folder without it may hold a field all the same
        data = None
    fitted = data.get("path") if isinstance(data, dict) else None
    return [*own, Path(fitted)] if isinstance(fitted, str) and fitted else own
