from pipeline import errors
from pipeline.errors import PipelineError, printable


def test_exit_codes_are_distinct_and_as_documented() -> None:
    codes = {cls.__name__: cls.exit_code for cls in PipelineError.__subclasses__() if cls.__module__ == errors.__name__}
    assert sorted(codes.values()) == [2, 3, 4, 5, 6, 7, 8]
    for name, code in codes.items():
        assert f"{code}    {name}" in (errors.__doc__ or "")


def test_printable_escapes_what_a_terminal_would_obey() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable("\u202eevil") == "\\u202eevil"


def test_printable_cuts() -> None:
    assert printable("x" * 1000, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10
