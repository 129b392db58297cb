"""Fuzzes what reads files from outside, guided by coverage: for hours, beside the short mutations of the suite.

    pip install atheris          # into an environment with the pipeline's light dependencies; not in requirements.txt
    python tests/bench/fuzz.py --seconds 3600 [--corpus DIR]

An input's first byte chooses what reads the rest: the pickle reader alone, as a test set, as a batch, as
batches.meta, or the archives.  Anything but a value or BadData is a crash; so are 3 s or 512 MB for one input.
A crash ends it with an exit code other than 0, and the input stays in the corpus folder's `crashes`.
"""

import argparse
import contextlib
import importlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SECONDS_AN_INPUT, MEGABYTES = 3, 512
MAX_INPUT = 1 << 16  # bytes


def seeds() -> dict[str, bytes]:
    """Honest files and the crafted ones, each with the byte before it that chooses its reader."""
    from tests.hostile import archives, pickles
    from tests.hostile import test_crafted_files as crafted

    honest = {name.rpartition("/")[2]: content for name, content in archives.competition().items()}
    readers = {"cifar_test_nolabel.pkl": 1, "batches.meta": 3}
    found = {name: bytes([readers.get(name, 2)]) + content for name, content in honest.items()}
    found |= {f"reader {name}": b"\0" + content for name, content in honest.items()}
    found |= {f"pickle {name}": b"\0" + make() for name, make in pickles.REFUSED.items()}
    for byte, contents in ((1, crafted.HIDDEN), (2, crafted.BATCH), (3, crafted.META)):
        found |= {f"{byte} {name}": bytes([byte]) + content for name, content in contents.items()}
    found |= {f"archive {n}": b"\4" + make() for n, make in (archives.REFUSED | archives.TAKEN).items()}
    return {name: content for name, content in found.items() if len(content) <= MAX_INPUT}


def read(kind: int, data: bytes, folder: Path) -> None:
    """Give an input to its reader; `folder` is for what is read by name."""
    from pipeline.store import archive, cifar, pickles

    path = folder / (cifar.META if kind == 3 else "input")
    path.write_bytes(data)
    match kind:
        case 0:
            pickles.loads(data)
        case 1:
            cifar.read_hidden(path)
        case 2:
            cifar.read_batches(folder, ("input",))
        case 3:
            cifar.read_class_names(folder)
        case _:
            with tempfile.TemporaryDirectory(dir=folder) as inside:
                archive.extract(path, Path(inside))
                entries = list(Path(inside).rglob("*"))
                assert all(entry.resolve().is_relative_to(inside) for entry in entries)
                assert all(entry.is_file() or entry.is_dir() for entry in entries)


def main() -> None:
    """Fuzz until a crash or the end of the time.  Does not return."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder to keep, and to go on with; default: a temporary one")
    options = parser.parse_args()
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        raise SystemExit("error: atheris is not installed: pip install atheris") from None
    with atheris.instrument_imports(include=["pipeline.store", "tarfile", "zipfile"]):
        import pipeline.store.archive
        import pipeline.store.cifar  # noqa: F401 - imported here to be instrumented
    from pipeline.errors import BadData

    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    found, first, crashes = (corpus / name for name in ("found", "seeds", "crashes"))
    for folder in (found, first, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds().values()):
        (first / f"{number:04}").write_bytes(content)
    with tempfile.TemporaryDirectory() as scratch:

        def one_input(data: bytes) -> None:
            if data:
                with contextlib.suppress(BadData):
                    read(data[0] % 5, data[1:], Path(scratch))

        limits = [f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={MAX_INPUT}"]
        flags = [*limits, f"-max_total_time={options.seconds}", f"-artifact_prefix={crashes}/"]
        atheris.Setup([sys.argv[0], *flags, str(found), str(first)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
