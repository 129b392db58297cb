"""Fuzzes what reads files from outside, guided by coverage: for hours, beside the short mutations of the suite.

    pip install atheris          # into an environment with the pipeline's light dependencies; not in requirements.txt
    python tests/bench/fuzz.py --seconds 3600 [--corpus DIR] [--json]

An input's first byte chooses what reads the rest: the pickle reader alone, as a hidden set, as a batch, as
batches.meta, or the archives.  Anything but a value or BadData is a crash; so are 3 s or 512 MB for one input.
After a crash the fuzzer goes on, and the input stays in the corpus folder's `crashes`.  Exit code 1 if there were any.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SECONDS_AN_INPUT, MEGABYTES = 3, 512
MAX_INPUT = 1 << 16  # bytes
MAX_CRASHES = 20  # after which it stops


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
                files = archive.extract(path, Path(inside))
                assert all(file.resolve().is_relative_to(inside) and file.is_file() for file in files)


def work(flags: list[str]) -> None:
    """In the child process: fuzz until a crash or the end of the time.  Does not return."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["pipeline.store", "tarfile", "zipfile"]):
        import pipeline.store.archive
        import pipeline.store.cifar  # noqa: F401 - imported here to be instrumented
    from pipeline.errors import BadData

    with tempfile.TemporaryDirectory() as folder:

        def one_input(data: bytes) -> None:
            if data:
                with contextlib.suppress(BadData):
                    read(data[0] % 5, data[1:], Path(folder))

        atheris.Setup([sys.argv[0], *flags], one_input)
        atheris.Fuzz()


def run_child(log: Path, crashes: Path, seconds: int, inputs: list[Path]) -> str:
    """Fuzz in a child process until a crash or the end of the time; what it said."""
    limits = [f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={MAX_INPUT}"]
    flags = [*limits, f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/", "-print_final_stats=1"]
    command = [sys.executable, __file__, "--work", *flags, *map(str, inputs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", check=False)
    with log.open("a") as stream:
        stream.write(done.stdout)
    return done.stdout


def fuzz(corpus: Path, seconds: int) -> dict[str, object]:
    """Run children until the time is over; what they came to."""
    found, first, crashes = (corpus / name for name in ("found", "seeds", "crashes"))
    for folder in (found, first, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds().values()):
        (first / f"{number:04}").write_bytes(content)
    before, known = set(crashes.iterdir()), set[Path]()
    ends = time.monotonic() + seconds
    executions = coverage = 0
    while (left := int(ends - time.monotonic())) > 0 and len(known) < MAX_CRASHES:
        text = run_child(corpus / "log.txt", crashes, left, [found, first])
        new = set(crashes.iterdir()) - before - known
        done = [int(n) for n in re.findall(r"^#(\d+)\t", text, re.M)]
        if not done and not new:
            raise SystemExit(f"error: the fuzzer did not start; see {corpus / 'log.txt'}")
        executions += max(done, default=0)
        coverage = max([coverage, *(int(n) for n in re.findall(r"cov: (\d+)", text))])
        known |= new
        crashing = {path.read_bytes() for path in new}  # the next child would end at once
        for path in (*found.iterdir(), *first.iterdir()):
            if path.read_bytes() in crashing:
                path.unlink()
    names = sorted(path.name for path in known)
    return {"seconds": seconds, "executions": executions, "coverage": coverage, "crashes": names, "corpus": str(corpus)}


def main() -> int:
    """The command line; the exit code."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder to keep, and to go on with; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("error: atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    result = fuzz(options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-")), options.seconds)
    print(json.dumps(result) if options.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
    return 1 if result["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
