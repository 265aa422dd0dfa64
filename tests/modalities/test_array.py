"""Tables of scattered samples: what is read of them, what is fitted, what is written."""

import csv
import io

import numpy as np
import pytest

import inrkit
from inrkit import ConfigError, DataError
from inrkit.modalities.array import Array, ArrayOptions
from inrkit.signals.modality import modality_of

QUICK = {"steps": 2, "network": {"hidden_features": 8, "hidden_layers": 1}}


def read(path, **options):
    return Array(ArrayOptions(**options)).read(path)


def table(tmp_path, text, name="table.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def physical(dataset):
    """The places in the file's units."""
    return dataset.points.numpy().astype(float) @ dataset.affine[:, :-1].T + dataset.affine[:, -1]


def holds(dataset, points, values):
    np.testing.assert_allclose(physical(dataset), points, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(dataset.values.numpy(), values)


POINTS = [[1.5, 10], [2.5, 30], [4, 20]]
VALUES = [[7.25], [-8], [9000]]


@pytest.mark.parametrize(
    "text",
    [
        "x,y,v\n1.5,10,7.25\n2.5,30,-8\n4,20,9e3\n",
        "x;y;v\n1.5;10;7.25\n2.5;30;-8\n4;20;9000\n",
        "x;y;v\n1,5;10;7,25\n2,5;30;-8\n4,0;20;9000\n",
        "x\ty\tv\n1.5\t10\t7.25\n2.5\t30\t-8\n4\t20\t9000\n",
        "x\ty\tv\r\n1,5\t10\t7,25\r\n2,5\t30\t-8\r\n4\t20\t9000\r\n",
        "x y v\n1.5 10  7.25\n2.5   30 -8\n4 20 9000\n",
        "x|y|v\n1.5|10|7.25\n2.5|30|-8\n4|20|9000\n",
        "# x y v\n1.5 10 7.25\n2.5 30 -8\n4 20 9000\n",
        "% a survey\n% of 2024\nx,y,v\n\n1.5,10,7.25\n# a pause, here\n2.5,30,-8\n4,20,9000",
        '"x","y","v"\n"1.5","10","7.25"\n"2.5","30","-8"\n4,20,9000\n',
        "x,y,v,\n1.5,10,7.25,\n2.5,30,-8,\n4,20,9000,\n",
        "\ufeffx,y,v\n1.5,10,7.25\n2.5,30,-8\n4,20,9000\n",
        "v,y,x\n7.25,10,1.5\n-8,30,2.5\n9000,20,4\n",
    ],
)
def test_a_table_is_read_however_it_is_separated(tmp_path, text):
    path = table(tmp_path, text)
    assert modality_of(path) == "array"
    dataset = read(path)
    order = [1, 0] if text.startswith("v") else [0, 1]
    holds(dataset, np.array(POINTS)[:, order], VALUES)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_units_are_kept_and_shown(tmp_path, encoding):
    text = "lon [°],lat [°],time (s),T / °C\n5,47,0,3.5\n6,48,9,4.5\n"
    dataset = read(table(tmp_path, text, encoding=encoding))
    assert dataset.metadata["columns"] == {
        "coordinates": [
            {"name": "lon", "unit": "°"},
            {"name": "lat", "unit": "°"},
            {"name": "time", "unit": "s"},
        ],
        "values": [{"name": "T", "unit": "°C"}],
    }
    assert "coordinates are lon [°], lat [°], time [s]; values are T [°C]" in dataset.metadata["notes"]


def test_units_may_stand_in_a_row_of_their_own(tmp_path):
    dataset = read(table(tmp_path, "x,y,v\n[mm],[mm],[K]\n1.5,10,7.25\n2.5,30,-8\n4,20,9000\n"))
    holds(dataset, POINTS, VALUES)
    assert dataset.metadata["columns"]["values"] == [{"name": "v", "unit": "K"}]


def test_rows_with_something_unknown_are_left_out_and_counted(tmp_path):
    text = "x,y,v\n1.5,10,7.25\n,3,4\n2.5,30,-8\n3,3,NaN\n3,3,n/a\n4,20,9000\n3,3,\n"
    dataset = read(table(tmp_path, text))
    holds(dataset, POINTS, VALUES)
    assert any("4 of 7 samples are not fully known" in note for note in dataset.metadata["notes"])


def test_python_leaves_out_the_same_samples():
    points, values = np.array([[0.0, 1], [np.nan, 2], [3, 3]]), np.array([1.0, 2, np.nan])
    run = inrkit.fit(points=points, values=values, **QUICK)
    assert run.result["coordinates"] == 1


def test_columns_may_be_chosen(tmp_path):
    path = table(tmp_path, "a,b,c,d\n1,5,2,3\n2,6,8,4\n")
    with pytest.raises(DataError, match=r"names no coordinates; name them with .*columns: a, b, c, d"):
        read(path)
    holds(read(path, coordinates=["C", "a"], values=["4"]), [[2, 1], [8, 2]], [[3], [4]])
    holds(read(path, coordinates=["a"]), [[1], [2]], [[5, 2, 3], [6, 8, 4]])
    holds(read(path, values=["d"]), [[1, 5, 2], [2, 6, 8]], [[3], [4]])
    with pytest.raises(ConfigError, match="'e', which is no column"):
        read(path, coordinates=["e"])
    with pytest.raises(ConfigError, match="both name a"):
        read(path, coordinates=["a"], values=["a"])


def test_without_a_header_all_but_the_last_are_coordinates(tmp_path):
    dataset = read(table(tmp_path, "1.5,10,7.25\n2.5,30,-8\n4,20,9000\n"))
    holds(dataset, POINTS, VALUES)
    assert "coordinates are column 1, column 2; values are column 3" in dataset.metadata["notes"]


def test_a_bare_matrix_is_not_taken_for_samples(tmp_path):
    text = io.StringIO()
    np.savetxt(text, np.arange(120).reshape(4, 30), delimiter=",")
    path = table(tmp_path, text.getvalue())
    assert not Array.claims(path)
    with pytest.raises(DataError, match="30 columns and no header"):
        read(path)
    assert not Array.claims(table(tmp_path, "1,2,3\n4,5,6\n", "small.csv"))
    assert not Array.claims(table(tmp_path, "name,size\na,2\nb,3\n", "words.csv"))


def test_heights_are_values_over_x_and_y(tmp_path):
    holds(read(table(tmp_path, "x,y,z\n0,0,5\n1,2,6\n")), [[0, 0], [1, 2]], [[5], [6]])


def test_words_and_row_numbers_are_left_out(tmp_path):
    text = ',x,station,v\n0,1,"Bern; ""Zollikofen""",5\n1,2,"Basel, Binningen",6\n2,4,"two\nlines",7\n'
    dataset = read(table(tmp_path, text))
    holds(dataset, [[1], [2], [4]], [[5], [6], [7]])
    assert "left out: column 1, station" in dataset.metadata["notes"]


def test_truth_is_one_or_zero(tmp_path):
    dataset = read(table(tmp_path, "x,y,inside\n1,2,True\n3,4,false\n5,6,\n"))
    holds(dataset, [[1, 2], [3, 4]], [[1], [0]])


def test_dates_become_seconds_since_the_first(tmp_path):
    text = "time,v\n2024-03-01T12:00,1\n2024-02-29,2\n2024-03-01T13:00:00.5+01:00,3\n,4\n"
    dataset = read(table(tmp_path, text))
    holds(dataset, [[36 * 3600], [0], [36 * 3600 + 0.5]], [[1], [2], [3]])
    assert dataset.metadata["columns"]["coordinates"] == [{"name": "time", "unit": "s", "since": "2024-02-29T00:00:00"}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no rows"),
        ("# only words\n", "no rows"),
        ("x,y,v\n", "a header and no rows"),
        ("x,v\n1,2\n2,3,4\n", "line 3, has 3 fields and the table 2 columns"),
        ("x,v\n1,2\n2\n", "line 3, has 1 fields"),
        ("x,v\n1,2\n2,three\n", "line 3: v is 'three', which is not a number"),
        ("x,v\n1,2\n2,inf\n", "line 3: v is 'inf'"),
        ("time,v\n01/02/2024,2\n02/02/2024,3\n", "time holds words, not numbers or dates like 2024-05-31"),
        ("time,v\n2024-01-02,2\n2 Jan,3\n", "line 3: time is '2 Jan', which is not a date"),
        ("x,when\n1,2024-01-02\n2,2024-01-03\n", "no column of numbers for values"),
        ("x,v\n1,\n2,NaN\n", "each of the 2 samples has a NaN"),
        ('x,y,v\n1,2,"1,234.50"\n2,3,7\n', "v holds numbers with separators or signs"),
        ("x,y,share\n1,2,50 %\n2,3,7.5 %\n", "share holds numbers with separators or signs"),
        ("v\n1\n2\n", "names no coordinates.*save an array without coordinates as .npy"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_in_a_line(tmp_path, text, told):
    with pytest.raises(DataError, match=told) as raised:
        read(table(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_samples_at_one_place_that_differ_are_kept_and_noted(tmp_path):
    dataset = read(table(tmp_path, "x,v\n1,2\n1,3\n1,2\n4,4\n4,4\n-0,1\n0,1\n"))
    assert len(dataset) == 7
    assert any(note.startswith("2 samples share a place") for note in dataset.metadata["notes"])


def test_many_rows_are_read_in_parts(tmp_path):
    points = np.random.default_rng(0).uniform(-5, 5, (150_000, 2))
    values = points.sum(axis=1).round(4)
    path = tmp_path / "long.csv"
    rows = np.column_stack([points, values])
    np.savetxt(path, rows, "%.9g", ",", header="x,y,v", comments="")
    holds(read(path), points, values[:, None])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_and_a_flat_axis_are_fitted(tmp_path, count):
    rows = "".join(f"{number},5,{number}\n" for number in range(count))
    path = table(tmp_path, f"x,y,v\n{rows}")
    run = inrkit.fit(path, out=tmp_path / "run", **QUICK)
    assert run.result["status"] == "done"
    assert run.field([[0.0, 5.0]], physical=True).shape == (1, 1)


def test_parquet_and_archives_of_columns_are_the_same_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "time": np.array(["2024-01-01", "2024-01-02", "NaT", "2024-01-04T12:00:00.25"], dtype="datetime64[us]"),
        "depth [m]": np.array([3, 2, 1, 5]),
        "salt": np.array([0.25, 0.5, 0.75, 1.0]),
    }
    parquet.write_table(pyarrow.table({**columns, "who": ["a", "b", "c", None]}), tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", **columns)
    for name in ("t.parquet", "t.npz"):
        assert modality_of(tmp_path / name) == "array"
        dataset = read(tmp_path / name)
        holds(dataset, [[0, 3], [86400, 2], [3.5 * 86400 + 0.25, 5]], [[0.25], [0.5], [1.0]])
        assert dataset.metadata["columns"]["coordinates"][1] == {"name": "depth", "unit": "m"}


@pytest.mark.parametrize("names", [("coords", "values"), ("coordinates", "value"), ("positions", "values")])
def test_an_archive_of_samples_may_call_its_arrays_otherwise(tmp_path, names):
    points, values = np.random.default_rng(0).random((50, 2)), np.arange(50.0)
    np.savez(tmp_path / "t.npz", **dict(zip(names, (points, values[:, None]), strict=True)))
    assert modality_of(tmp_path / "t.npz") == "array"
    dataset = read(tmp_path / "t.npz")
    assert len(dataset) == 50
    np.testing.assert_array_equal(dataset.values[:, 0], values)
    # Arrays of such names that do not go together are no samples.
    np.savez(tmp_path / "v.npz", **dict(zip(names, (points, np.zeros((4, 5, 6))), strict=True)))
    assert modality_of(tmp_path / "v.npz") == "volume"


def test_parquet_of_fewer_than_no_rows_is_damaged(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"x": [1.0, 2.0], "y": [3.0, 4.0]}), path, store_schema=False)
    # The third field of the footer is the number of rows: 2 is 4 there, and 3 is −2.
    path.write_bytes(path.read_bytes().replace(b"\x16\x04", b"\x16\x03"))
    assert parquet.ParquetFile(path).metadata.num_rows == -2
    with pytest.raises(DataError, match=r"t\.parquet is damaged or truncated"):
        read(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'inrkit\[tables\]'"):
        read(table(tmp_path, "PAR1", "t.parquet"))


def test_a_field_is_written_in_the_tables_units(tmp_path):
    text = "time,depth [m],T [K]\n2024-01-01,10,280\n2024-01-01T01:00,30,290\n2024-01-01T00:30,20,283\n"
    run = inrkit.fit(table(tmp_path, text), out=tmp_path / "run", **QUICK)
    field, modality = run.field, run.field.modality
    values = field.render((4, 2))
    for suffix in (".npy", ".npz", ".csv"):
        modality.export(tmp_path / f"out{suffix}", field, (4, 2))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), values)
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_allclose(archive["time"], [450, 1350, 2250, 3150])
        np.testing.assert_allclose(archive["depth"], [15, 25])
        np.testing.assert_array_equal(archive["values"], values)
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["time", "depth [m]", "T [K]"]
    assert [row[:2] for row in rows[:3]] == [
        ["2024-01-01T00:07:30", "15"],
        ["2024-01-01T00:07:30", "25"],
        ["2024-01-01T00:22:30", "15"],
    ]
    np.testing.assert_array_equal([float(row[2]) for row in rows], values.ravel())
    again = read(tmp_path / "out.csv")
    assert again.metadata["columns"]["values"] == [{"name": "T", "unit": "K"}]
    assert run.reconstruction.name == "reconstruction.npz"
    with pytest.raises(ConfigError, match=r"choose \.npy, \.npz or \.csv"):
        modality.export(tmp_path / "out.tif", field, (4, 2))


def test_columns_in_different_units_are_fitted_alike(tmp_path):
    x = np.linspace(0, 6, 300)
    columns = np.column_stack([np.sin(x), 101_325 + 500 * np.cos(x)])
    np.savetxt(tmp_path / "t.csv", np.column_stack([x, columns]), "%.9g", ",", header="x,a,p", comments="")
    network = {"name": "siren", "hidden_features": 24}
    run = inrkit.fit(tmp_path / "t.csv", out=tmp_path / "run", network=network, steps=60, quiet=True)
    missed = inrkit.load(run.folder)(x[:, None], physical=True) - columns
    assert (missed.std(axis=0) < 0.8 * columns.std(axis=0)).all()


def test_held_out_samples_are_not_trained_on_but_rated(tmp_path):
    places = np.random.default_rng(0).uniform(0, 3, (500, 1))
    rows = np.column_stack([places, np.sin(places)])
    path = tmp_path / "t.csv"
    np.savetxt(path, rows, "%.9g", ",", header="x,v", comments="")
    dataset = read(path, held_out=0.2)
    assert len(dataset) == 400
    np.testing.assert_allclose(dataset.affine, read(path).affine)

    class Exact:
        def __call__(self, points, physical):
            assert physical
            left.append(points)
            return np.sin(points) + 0.5

    left = []
    metrics = Array(ArrayOptions(held_out=0.2)).assess(Exact(), path)
    span = np.ptp(np.sin(places))
    assert metrics == pytest.approx({"held_out_rmse": 0.5, "held_out_psnr": 20 * np.log10(span / 0.5)}, rel=1e-5)
    together = np.concatenate([left[0], physical(dataset)])
    np.testing.assert_allclose(np.sort(together, axis=0), np.sort(places, axis=0), atol=1e-6)
    assert Array(ArrayOptions()).assess(Exact(), path) == {}


def test_evos_sees_the_neighbours_of_free_points(tmp_path):
    run = inrkit.fit(
        points=np.random.default_rng(0).uniform(0, 1, (300, 2)), values=np.arange(300.0), selector="evos", **QUICK
    )
    assert run.config.operator.name == "graph-laplacian"


def test_a_dataset_on_a_lattice_has_the_lattices_laplacian():
    run = inrkit.fit(inrkit.CoordinateDataset(np.zeros((5, 6, 1), dtype=np.float32)), **QUICK)
    assert run.config.operator.name == "laplacian"
