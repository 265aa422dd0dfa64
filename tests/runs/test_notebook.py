"""A fit in a real notebook."""

import pytest

CODE = """
import numpy as np, inrkit
run = inrkit.fit(np.random.default_rng(0).random((20, 24, 3)), seconds=3, compile="never", every=5)
"""


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_a_growing_picture_and_a_run_shows_its_picture(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    sent = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, cell, index):
            if message["msg_type"] in ("display_data", "update_display_data"):
                sent.append(message["content"]["data"]["text/html"])
            return super().process_message(message, cell, index)

    cells = [nbformat.v4.new_code_cell(source) for source in (CODE, "run", "inrkit.fit('p.png', steps=2, quiet=True)")]
    cells.insert(0, nbformat.v4.new_code_cell("from PIL import Image; Image.new('RGB', (20, 24), 'red').save('p.png')"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    Client(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, fitted, shown, quiet = notebook.cells
    outputs = [output["data"]["text/html"] for output in fitted.outputs if "data" in output]
    bar, picture = ([html for html in outputs if html.startswith(start)] for start in ("<progress", "<img"))
    assert '<progress value="1.0000"' in bar[0] and "PSNR" in bar[0] and len(bar) == 1
    pictures = [html for html in sent if html.startswith("<img")]
    assert picture == pictures[-1:] and len(set(pictures)) == len(pictures) > 2
    (result,) = shown.outputs
    assert "PSNR" in result["data"]["text/html"] and "done" in result["data"]["text/plain"]
    (result,) = quiet.outputs
    assert "data:image/png;base64," in result["data"]["text/html"]
