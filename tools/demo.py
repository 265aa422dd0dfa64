"""What `make demo` runs: fit a sample signal of each kind and say which pages to open."""

from __future__ import annotations

from pathlib import Path

import inrkit
from inrkit.signals.modality import MODALITIES

FOLDER = Path("runs/demo")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    opened = []
    for name in MODALITIES.names():
        modality = MODALITIES.get(name)
        signal = FOLDER / f"{name}{modality.sample_suffix}"
        modality(modality.Options()).sample(signal)
        run = inrkit.Run(FOLDER / f"{name}-run")
        if run.result.get("status") != "done":
            run = inrkit.fit(signal, out=run.folder, resume=run.exists, quiet=False)
        opened.append(run.folder / "report.html")
    print("\nOpen the pages of the fits:")
    for path in opened:
        print(f"  {path}")


if __name__ == "__main__":
    main()
