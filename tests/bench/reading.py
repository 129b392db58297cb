"""How long our pickle reader takes beside `pickle.load`, on generated files of the real sizes.

    python tests/bench/reading.py [--json] [--rounds N]

Both read the same files in turn, in one process; the medians are of `--rounds` rounds.  The headline `ratio`
is ours/theirs on the competition's own kind of file (protocol 4, 30.8 MB).
"""

import pickle
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.store.cifar import load as read
from tests.bench import side_by_side
from tests.doubles import cpickle

ROWS = 10_000
HEADLINE = "hidden, protocol 4"


def theirs(path: Path) -> object:
    """What a trusting program does.  The files are our own, so it is safe here."""
    with path.open("rb") as stream:
        return pickle.load(stream, encoding="bytes")


def files() -> dict[str, bytes]:
    """Two competition's test files: `data` uint8 (10000, 32, 32, 3), `ids` int64 (10000,); and a batch of Python 2."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
    hidden = {b"data": images, b"ids": np.arange(ROWS)}
    names = [f"frog_{n:06d}.png" for n in range(ROWS)]
    return {
        HEADLINE: pickle.dumps(hidden, protocol=4),
        "hidden, protocol 2": pickle.dumps(hidden, protocol=2),
        "data_batch, Python 2": cpickle.batch("data_batch_1", images, [n % 10 for n in range(ROWS)], names),
    }


def main() -> None:
    """Measure and print."""
    arguments = side_by_side.parser(__doc__, rounds=9).parse_args()
    found: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pkl"
        for kind, content in files().items():
            path.write_bytes(content)
            ways = {"pickle": partial(theirs, path), "ours": partial(read, path)}
            found[kind], shown = side_by_side.compare(ways, "ours", arguments.rounds, ROWS)
            lines += [f"{kind}, {len(content) / 1e6:.1f} MB", *shown]
    side_by_side.report(arguments.json, {"ratio": found[HEADLINE]["ratios"]["pickle"], "files": found}, lines)


if __name__ == "__main__":
    main()
