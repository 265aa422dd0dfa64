"""Change files at random and read them: every reader must read or refuse them, in bounded memory and time.

    .venv/bin/python tools/fuzz.py --minutes 30

Inputs are small valid files of every format that can be written here, a field, a checkpoint and configs, changed where
it matters: numbers replaced by extremes, parts cut, doubled and swapped, words of text exchanged, members of archives
and chunks of PNG changed with their checksums made right again. Each is read in a fork of its own, with a limit of
memory and time. What raises anything but an error of inrkit is kept, with its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import inrkit
from inrkit.coding.entropy import inflated
from inrkit.coding.file import MARK
from inrkit.coding.file import WORDS as WORDS_OF_FIELDS
from inrkit.config import parse_overrides, read_yaml, resolve
from inrkit.errors import InrkitError
from inrkit.runs.run import Run
from inrkit.signals.modality import MODALITIES

SUFFIXES = {
    "image": ("png", "jpg", "tif", "webp", "bmp", "tga", "ppm", "jp2", "npy"),
    "audio": ("wav", "flac", "ogg", "aif", "mp3"),
    "shape": ("obj", "ply", "stl", "off", "glb", "npy"),
    "volume": ("npy", "npz", "nii", "nii.gz", "tif"),
    "video": ("gif", "npy", "apng"),
    "array": ("csv", "tsv", "npz"),
}
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
WORDS = [b"0", b"-1", b"nan", b"inf", b"1e999", b"9" * 30, b"9" * 5000, b"", b"null", b"{}", b"[]", b"\xff\xfe", b"\0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="inputs whose names hold this")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="folder for the inputs that find a fault")
    parser.add_argument("--memory", type=float, default=1.5, help="GiB that reading may take")
    parser.add_argument("--seconds", type=float, default=20.0, help="that reading may take")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chance, until = random.Random(given.seed), time.monotonic() + 60 * given.minutes
    tried, read, found = 0, 0, {}
    with tempfile.TemporaryDirectory() as folder:
        every = {name: seed for name, seed in seeds(Path(folder)).items() if given.only in name}
        print(f"{len(every)} kinds of input", flush=True)
        while time.monotonic() < until and every:
            name = chance.choice(list(every))
            content, reader = every[name]
            path = Path(folder) / f"changed-{name.partition(' ')[2]}"
            path.write_bytes(changed(content, path.name, chance))
            outcome = attempt(reader, path, given.memory, given.seconds)
            tried += 1
            read += outcome == "read"
            if outcome not in ("read", "refused") and outcome not in found:
                found[outcome] = name
                given.keep.mkdir(exist_ok=True)
                (given.keep / f"{len(found)}-{path.name}").write_bytes(path.read_bytes())
                print(f"{name}: {outcome}", flush=True)
    print(f"{tried} inputs, {read} of them read, {len(found)} faults")
    sys.exit(1 if found else 0)


Reader = Callable[[Path], object]


def seeds(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Valid inputs by name, "kind file", with what reads them."""
    found: dict[str, tuple[bytes, Reader]] = {}
    for modality, suffixes in SUFFIXES.items():
        plugin = MODALITIES.get(modality)
        reader = plugin(plugin.Options())
        for suffix in suffixes:
            path = folder / f"{modality}.{suffix}"
            with contextlib.suppress(Exception):  # a format that this modality does not write, or not without an extra
                _write_sample(modality, reader, path)
            if path.exists() and path.stat().st_size < 1 << 20:
                found[f"{modality} {path.name}"] = path.read_bytes(), _signal_reader(reader)
    picture = folder / "picture.npy"
    np.save(picture, np.random.default_rng(0).random((12, 10, 1)).astype(np.float32))
    quick = {"steps": 2, "network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1}, "compile": "never"}
    run = inrkit.fit(picture, out=folder / "run", **quick)
    found["field field.safetensors"] = (run.folder / "field.safetensors").read_bytes(), _render
    inrkit.compress(run.folder / "field.safetensors", run.folder / "field.inr", size=20_000)
    found["field field.inr"] = (run.folder / "field.inr").read_bytes(), _render
    found["checkpoint checkpoint.pt"] = (run.folder / "checkpoint.pt").read_bytes(), _resume(run.folder)
    found["config config.yaml"] = (run.folder / "config.yaml").read_bytes(), lambda path: resolve([read_yaml(path)])
    words = b"selector=evos selector.ratio=0.5 network=wire optimizer.lr=1e-3 metrics=[psnr,ssim] train.steps=5 seed=3"
    found["words words.txt"] = words, _resolve_words
    return found


def _write_sample(modality: str, reader: inrkit.Modality, path: Path) -> None:
    if path.suffix == ".apng":
        frames = [np.full((6, 5, 3), 40 * number, np.uint8) for number in range(4)]
        from PIL import Image

        Image.fromarray(frames[0]).save(
            path, "PNG", save_all=True, append_images=[Image.fromarray(each) for each in frames[1:]]
        )
        return
    if modality == "shape" and path.suffix == ".npy":
        np.save(path, np.random.default_rng(0).random((6, 6, 6)).astype(np.float32) - 0.5)
        return
    if modality == "shape":
        import trimesh

        trimesh.creation.icosphere(1).export(path)
        return
    if modality == "array":
        rows = np.random.default_rng(0).random((30, 3))
        if path.suffix == ".npz":
            np.savez(path, points=rows[:, :2], values=rows[:, 2:])
        else:
            separator = "," if path.suffix == ".csv" else "\t"
            lines = [separator.join(("x [m]", "y [m]", "t"))] + [separator.join(map(str, row)) for row in rows.tolist()]
            path.write_text("\n".join(lines))
        return
    shape = {"image": (12, 10, 3), "audio": (4000, 1), "volume": (6, 5, 4, 1), "video": (4, 6, 5, 3)}[modality]
    values = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16 if modality == "audio" else np.uint8)
    reader.write(path, values, {"rate": 8000, "sample_rate": 8000, "squeezed": True, "frame_rate": 10.0})


def _signal_reader(reader: inrkit.Modality) -> Reader:
    def read(path: Path) -> object:
        dataset = reader.read(path)
        return dataset.extent

    return read


def _render(path: Path) -> object:
    return inrkit.load(path).render((5, 5))


def _resume(run: Path) -> Reader:
    def resume(path: Path) -> object:
        path.replace(run / "checkpoint.pt")
        return inrkit.fit(run, resume=True, steps=4) if Run(run).exists else None

    return resume


def _resolve_words(path: Path) -> object:
    words = [word for word in path.read_text(errors="surrogateescape").split(" ") if word]
    return resolve([{"data": {"path": "photo.png"}}, parse_overrides(words)])


def changed(content: bytes, name: str, chance: random.Random) -> bytes:
    """The content with one change or a few."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        content = _changed_inside(content, chance) if chance.random() < 0.4 else _changed_once(content, chance)
    return content


def _changed_inside(content: bytes, chance: random.Random) -> bytes:
    """A change below a container's checksums and compression, if it has any."""
    with contextlib.suppress(Exception):
        if content[:2] == b"PK":
            return _changed_archive(content, chance)
        if content[:2] == b"\x1f\x8b":
            import gzip

            return gzip.compress(_changed_once(gzip.decompress(content), chance))
        if content[:4] == b"\x89PNG":
            return _changed_png(content, chance)
        if content[:8] == MARK:
            return _changed_compressed(content, chance)
        if content[:4] == b"glTF" or b"inrkit" in content[:4096]:
            return _changed_text(content, chance)
    return _changed_once(content, chance)


def _changed_archive(content: bytes, chance: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
        stored = archive.infolist()[0].compress_type
    which = chance.randrange(len(parts))
    parts[which] = parts[which][0], _changed_once(parts[which][1], chance)
    if chance.random() < 0.2:
        del parts[chance.randrange(len(parts))]
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", stored) as archive:
        for name, data in parts:
            archive.writestr(name, data)
    return result.getvalue()


def _changed_png(content: bytes, chance: random.Random) -> bytes:
    chunks, start = [], 8
    while start + 8 <= len(content):
        (length,) = struct.unpack(">I", content[start : start + 4])
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += 12 + length
    which = chance.randrange(len(chunks))
    name, body = chunks[which]
    if name in (b"IDAT", b"fdAT") and chance.random() < 0.5:
        head = b"" if name == b"IDAT" else body[:4]
        body = head + zlib.compress(_changed_once(zlib.decompress(body[len(head) :]), chance))
    else:
        body = _changed_once(body, chance)
    chunks[which] = name, body
    if chance.random() < 0.2:
        chunks.insert(which, chunks[chance.randrange(len(chunks))])
    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _changed_compressed(content: bytes, chance: random.Random) -> bytes:
    """A change of a compressed field's description, tables or numbers, with the checksum made right."""
    head, ends = content[:12], np.cumsum([24, *struct.unpack_from("<III", content, 12)])
    parts = [content[start:stop] for start, stop in itertools.pairwise(ends)]
    numbers = content[ends[-1] : -4]
    which = chance.randrange(4)
    if which == 3:
        numbers = _changed_once(numbers, chance)
    else:
        words = WORDS_OF_FIELDS if which == 0 else b""
        plain = inflated(parts[which], 1 << 20, words)
        plain = _changed_text(plain, chance) if which == 0 else _changed_once(plain, chance)
        machine = zlib.compressobj(9, zdict=words) if words else zlib.compressobj(9)
        parts[which] = machine.compress(plain) + machine.flush()
    whole = head + struct.pack("<III", *map(len, parts)) + b"".join(parts) + numbers
    return whole + struct.pack("<I", zlib.crc32(whole))


def _changed_text(content: bytes, chance: random.Random) -> bytes:
    """One run of digits exchanged, so that lengths of JSON inside a binary file often stay right."""
    places = [place for place, byte in enumerate(content[:8192]) if byte in b"0123456789"]
    place = chance.choice(places)
    new = bytes([chance.choice(b"0123456789-e.[{")])
    return content[:place] + new + content[place + 1 :]


def _changed_once(content: bytes, chance: random.Random) -> bytes:
    size = len(content)
    if not size:
        return chance.choice(WORDS)
    # Headers are where it matters.
    place = chance.randrange(min(size, 256)) if chance.random() < 0.6 else chance.randrange(size)
    kind = chance.randrange(8)
    if kind == 0:
        return content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]
    if kind in (1, 2):
        width, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
        value = chance.choice(EXTREMES) % (1 << 8 * width)
        return content[:place] + value.to_bytes(width, order) + content[place + width :]  # type: ignore[arg-type]
    if kind == 3:
        return content[:place]
    if kind == 4:
        other = chance.randrange(size)
        return content[:place] + content[other : other + chance.choice((1, 8, 64, 4096))] + content[place:]
    if kind == 5:
        return content[:place] + content[place + chance.choice((1, 2, 8, 64)) :]
    ends = [at for at in range(place, min(size, place + 64)) if content[at : at + 1] in b" ,\n\t=:]}[{"]
    return content[:place] + chance.choice(WORDS) + content[(ends[0] if ends else place + 1) :]


def attempt(reader: Reader, path: Path, memory: float, seconds: float) -> str:
    """Read a file in a fork of this process: "read", "refused", or in a line what went wrong."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(receive)
        os.write(send, _outcome(reader, path, memory, seconds).encode()[:4000])
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    status = os.waitpid(process, 0)[1]
    if told:
        return told
    return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended without a word"


def _outcome(reader: Reader, path: Path, memory: float, seconds: float) -> str:
    silent = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(silent, number)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        reader(path)
        told = "read"
    except InrkitError as error:
        told = "refused" if "\n" not in str(error) or str(error).count("\n") < 60 else "a message without end"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [each for each in frames if "/inrkit/" in each.filename or "/modalities/" in each.filename]
        own = (ours or frames)[-1]
        told = f"{type(error).__name__} at {Path(own.filename).name}:{own.lineno}: {str(error)[:200]!r}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return told if grown < memory else f"takes {grown:.1f} GiB ({told[:100]})"


if __name__ == "__main__":
    main()
