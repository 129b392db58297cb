import re
from pathlib import Path

from PIL import Image

from pipeline.reporting import figures
from pipeline.reporting.figures import LOCAL, Drawn


def drawn(name: str = "plot") -> Drawn:
    with figures.style():
        figure = figures.blank(240)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LOCAL, marker="o")
        axes.set_xlabel('x < "y" & z')
    return Drawn(name, "A plot", 'It rises, "slowly" & <surely>.', figure)


def test_colours_follow_the_page() -> None:
    with figures.style():
        svg = figures.inline_svg(drawn())
    assert not re.search("|".join(figures.VARIABLES), svg)
    assert "var(--local)" in svg and "var(--ink)" in svg
    css = (Path(figures.__file__).parent / "report.css").read_text()
    for name in figures.VARIABLES.values():
        assert len(re.findall(rf"--{name}: #", css)) == 2, name  # in the light, and in the dark


def test_text_stays_text_and_large_enough() -> None:
    with figures.style():
        svg = figures.inline_svg(drawn())
    assert "x &lt; " in svg and "<text" in svg
    sizes = [float(size) for size in re.findall(r"<text[^>]*?([\d.]+)px", svg)]
    assert sizes and min(sizes) >= 11
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert view and abs(float(view[1]) - figures.WIDTH) < 1 and abs(float(view[2]) - 240) < 1


def test_two_figures_share_no_id() -> None:
    with figures.style():
        first, second = (set(re.findall(r'\bid="([^"]+)"', figures.inline_svg(drawn(name)))) for name in ("a", "b"))
        svg = figures.inline_svg(drawn("a"))
    assert first and not first & second
    for target in re.findall(r'(?:url\(#|href="#)([^")]+)', svg):
        assert target in first


def test_a_figure_is_described_in_words() -> None:
    with figures.style():
        svg = figures.inline_svg(drawn())
    assert svg.startswith('<svg role="img" aria-label=\'It rises, "slowly" &amp; &lt;surely&gt;.\'')


def test_the_same_figure_is_the_same_text() -> None:
    with figures.style():
        assert figures.inline_svg(drawn()) == figures.inline_svg(drawn())


def test_the_picture_is_sharp_and_has_its_title(tmp_path: Path) -> None:
    with figures.style():
        plot = drawn()
        path = figures.write_png(plot, tmp_path)
    assert path == tmp_path / "plot.png" and plot.figure.axes[0].get_title("left") == "A plot"
    with Image.open(path) as image:
        assert image.width == figures.WIDTH * figures.PNG_SCALE
