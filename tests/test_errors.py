from pipeline import errors
from pipeline.errors import PipelineError, printable


def test_every_error_has_an_exit_code_and_its_meaning() -> None:
    kinds: list[type[PipelineError]] = [PipelineError, *PipelineError.__subclasses__()]
    for kind in kinds:
        if kind.__module__ == errors.__name__:
            assert errors.EXIT_CODES[kind.exit_code] == kind.meaning
    assert list(errors.EXIT_CODES) == [*range(9), errors.INTERRUPTED]


def test_printable_escapes_what_a_terminal_would_obey() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable("\u202eevil") == "\\u202eevil"


def test_printable_cuts() -> None:
    assert printable("x" * 1000, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10
