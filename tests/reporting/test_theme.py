import re
from pathlib import Path

from PIL import Image

from pipeline.gap.contact_sheets import LOCAL
from pipeline.reporting import theme
from pipeline.reporting.theme import Drawn


def drawn(name: str = "plot") -> Drawn:
    with theme.style():
        figure = theme.blank(240)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LOCAL, marker="o")
        axes.set_xlabel('x < "y" & z')
    return Drawn(name, "A plot", 'It rises, "slowly" & <surely>.', figure)


def test_colours_follow_the_page() -> None:
    with theme.style():
        svg = theme.inline_svg(drawn())
    assert not re.search("|".join(theme.VARIABLES), svg)
    assert "var(--local)" in svg and "var(--ink)" in svg
    css = (Path(theme.__file__).parent / "report.css").read_text()
    for name in theme.VARIABLES.values():
        assert len(re.findall(rf"--{name}: #", css)) == 2, name  # in the light, and in the dark


def test_text_stays_text_and_large_enough() -> None:
    with theme.style():
        svg = theme.inline_svg(drawn())
    assert "x &lt; " in svg and "<text" in svg
    sizes = [float(size) for size in re.findall(r"<text[^>]*?([\d.]+)px", svg)]
    assert sizes and min(sizes) >= 11
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert view and abs(float(view[1]) - theme.WIDTH) < 1 and abs(float(view[2]) - 240) < 1


def test_two_figures_share_no_id() -> None:
    with theme.style():
        first, second = (set(re.findall(r'\bid="([^"]+)"', theme.inline_svg(drawn(name)))) for name in ("a", "b"))
        svg = theme.inline_svg(drawn("a"))
    assert first and not first & second
    for target in re.findall(r'(?:url\(#|href="#)([^")]+)', svg):
        assert target in first


def test_a_figure_is_described_in_words() -> None:
    with theme.style():
        svg = theme.inline_svg(drawn())
    assert svg.startswith('<svg role="img" aria-label=\'It rises, "slowly" &amp; &lt;surely&gt;.\'')


def test_the_same_figure_is_the_same_text() -> None:
    with theme.style():
        assert theme.inline_svg(drawn()) == theme.inline_svg(drawn())


def test_the_picture_is_sharp_and_has_its_title(tmp_path: Path) -> None:
    with theme.style():
        plot = drawn()
        path = theme.write_png(plot, tmp_path)
    assert path == tmp_path / "plot.png" and plot.figure.axes[0].get_title("left") == "A plot"
    with Image.open(path) as image:
        assert image.width == theme.WIDTH * theme.PNG_SCALE
