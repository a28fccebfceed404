import pytest

import raylab
from raylab import plot
from raylab.errors import UserError
from tests import made_up_spectra


@pytest.fixture(scope="module")
def table():
    return made_up_spectra.analyzed(made_up_spectra.gpt(1))


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    other = made_up_spectra.analyzed(made_up_spectra.gpt(2, seed=1))
    return made_up_spectra.folder(tmp_path_factory.mktemp("two"), {"a": table, "b": other})


def test_every_picture_is_a_file_and_a_figure(table, tmp_path):
    other = made_up_spectra.analyzed(made_up_spectra.gpt(1, seed=2))
    made = [
        plot.esd(table, layer="lm_head"), plot.esd_by_layer(table, most=3), plot.alpha_by_depth(table),
        plot.alpha_histogram(table), plot.metrics_by_depth(table, ["entropy"]), plot.compare(table, other),
    ]  # fmt: skip
    assert [len(each.panels) for each in made] == [3, 3, 1, 1, 1, 2]
    for each in made:
        png, pdf = each.save(tmp_path / "deep" / "a.png"), each.save(str(tmp_path / "a.pdf"))
        assert [path.read_bytes()[:4] for path in (*png, *pdf)] == [b"\x89PNG", b"%PDF"]
        assert each._repr_png_()[:4] == b"\x89PNG"
        assert len(each.figure().axes) >= len(each.panels)


def test_raylab_offers_it_without_matplotlib():
    import subprocess
    import sys

    code = "import sys, raylab; raylab.plot.esd; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert raylab.plot is plot


def test_a_folder_of_two_models_needs_a_name_for_one(folder):
    assert plot.esd(folder, "lm_head", model="b").title == "ESD of lm_head"
    assert len(plot.alpha_by_depth(str(folder)).panels) == 2
    assert plot.compare(folder).title.startswith("a and b")
    for call, said in (
        (lambda: plot.esd(folder, "lm_head"), "Say model=, one of a, b"),
        (lambda: plot.esd(folder, "lm_head", model="c"), "no model 'c'"),
        (lambda: plot.esd(folder, "lm_heat", model="a"), "Did you mean 'lm_head'"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_names_of_compared_models(table, folder):
    other = made_up_spectra.analyzed(made_up_spectra.gpt(1, seed=2))
    assert plot.compare(table, other).title.startswith("first and second")
    assert plot.compare(table, other, names=("before", "after")).title.startswith("before and after")
    with pytest.raises(UserError, match="here is one"):
        plot.compare(table)


def test_nothing_to_draw_is_one_line(table):
    bare = table.drop_columns(["evals", "alpha"])
    for call, said in (
        (lambda: plot.esd(bare, "lm_head"), "metric esd"),
        (lambda: plot.esd(table, "tiny"), "no eigenvalues"),
        (lambda: plot.esd_by_layer(bare), "metric esd"),
        (lambda: plot.alpha_by_depth(bare), "No layer has an alpha"),
        (lambda: plot.alpha_histogram(bare), "No layer has an alpha"),
        (lambda: plot.metrics_by_depth(table, ["x"]), "None of these columns"),
        (lambda: plot.compare(bare, bare), "No layer with an alpha"),
        (lambda: plot.alpha_by_depth(table.slice(0, 0)), "has no layer"),
    ):
        with pytest.raises(UserError, match=said) as error:
            call()
        assert "\n" not in str(error.value)
