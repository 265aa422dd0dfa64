"""A fit in a real notebook."""

import pytest

CODE = """
import numpy as np, inrkit
run = inrkit.fit(np.random.default_rng(0).random((20, 24, 3)), steps=20, compile="never", every=5)
"""


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_a_run_shows_its_picture(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(source) for source in (CODE, "run", "inrkit.fit('p.png', steps=2, quiet=True)")]
    cells.insert(0, nbformat.v4.new_code_cell("from PIL import Image; Image.new('RGB', (20, 24), 'red').save('p.png')"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, fitted, shown, quiet = notebook.cells
    bars = [
        output["data"]["text/html"] for output in fitted.outputs if "data" in output and "text/html" in output["data"]
    ]
    assert any('<progress value="1.0000"' in bar and "PSNR" in bar and "step 20" in bar for bar in bars)
    (result,) = shown.outputs
    assert "PSNR" in result["data"]["text/html"] and "done" in result["data"]["text/plain"]
    (result,) = quiet.outputs
    assert "data:image/png;base64," in result["data"]["text/html"]
