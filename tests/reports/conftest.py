import pytest
from PIL import Image

from inrkit.modalities.image import sample_picture


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(sample_picture(32)).save(path)
    return path
