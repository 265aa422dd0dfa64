"""Make inrkit/reports/assets: the libraries of other people that pages carry, from npm, bundled small.

    python tools/vendor_pages.py

This needs node and npm. A page holds a library as it is stored here, compressed, and the browser unpacks it.
"""

import gzip
import json
import subprocess
import tempfile
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "inrkit" / "reports" / "assets"

VERSIONS = {
    "plotly.js-basic-dist-min": "4.1.1",
    "three": "0.187.0",
    "@niivue/niivue": "0.69.0",
    "esbuild": "0.28.2",
}

ENTRIES = {
    "three": """
        export { BufferAttribute, BufferGeometry, Color, DirectionalLight, DoubleSide, HemisphereLight, Mesh,
                 MeshStandardMaterial, PerspectiveCamera, Points, PointsMaterial, Scene, WebGLRenderer } from "three";
        export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
    """,
    "niivue": 'export { Niivue, NVImage } from "@niivue/niivue";',
}
"""What pages use of a library: the name of the bundle, which is also that of its global object, and its source."""

LEFT_OUT = ("zarrita", "numcodecs")
"""What niivue would read files of a format with that pages never have; two thirds of its size."""

BUNDLED = {
    "plotly": ["plotly.js-basic-dist-min"],
    "three": ["three"],
    "niivue": ["gl-matrix", "nifti-reader-js", "fflate", "@ungap/structured-clone", "array-equal"],
}

NIIVUE_LICENSE = """BSD 2-Clause License

Copyright (c) 2021, Niivue
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
   list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."""
"""Its package on npm holds none; this is that of its repository."""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": VERSIONS}))
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, check=True)
        modules = folder / "node_modules"
        (folder / "empty.js").write_text("export default {};\n")
        for bundle, source in ENTRIES.items():
            (folder / f"{bundle}.js").write_text(source)
            left_out = [f"--alias:{module}=./empty.js" for module in LEFT_OUT]
            subprocess.run(
                [
                    modules / ".bin" / "esbuild",
                    f"{bundle}.js",
                    *("--bundle", "--minify", "--format=iife", "--target=es2020", "--legal-comments=none"),
                    *(f"--global-name={bundle}", f"--outfile={bundle}.min.js", *left_out),
                ],
                cwd=folder,
                check=True,
            )
            keep(bundle, (folder / f"{bundle}.min.js").read_bytes())
        keep("plotly", (modules / "plotly.js-basic-dist-min" / "plotly-basic.min.js").read_bytes())
        licenses = [f"niivue {VERSIONS['@niivue/niivue']}\n\n{NIIVUE_LICENSE}"]
        for packages in BUNDLED.values():
            for package in packages:
                about = json.loads((modules / package / "package.json").read_text())
                (file, *_) = sorted(modules.joinpath(package).glob("LICEN[SC]E*"))
                licenses.append(f"{package} {about['version']}\n\n{file.read_text().strip()}")
        (ASSETS / "LICENSES.txt").write_text(f"\n\n{'-' * 78}\n\n".join(sorted(licenses)) + "\n", encoding="utf-8")


def keep(name: str, script: bytes) -> None:
    """Write a script to the assets, such that the same script gives the same file."""
    (ASSETS / f"{name}.js.gz").write_bytes(gzip.compress(script, 9, mtime=0))


if __name__ == "__main__":
    main()
