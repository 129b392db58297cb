"""The order and the project's files -> a folder as `kaggle kernels push -p` takes it: two files.

A script kernel has one code file.  So main.py is pipeline/kernels/runner.py with the order filled in, and the project
(a tar.xz in base64) at its place.  Equal files and orders give equal bytes.
"""

import base64
import hashlib
import io
import lzma
import pprint
import tarfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

from pipeline import commands
from pipeline.config import fingerprint, project_files
from pipeline.errors import UsageError
from pipeline.kernels.order import Order
from pipeline.store import atomic

METADATA, MAIN = "kernel-metadata.json", "main.py"
RUNNER = Path(__file__).with_name("runner.py")
LARGEST = 1_000_000  # bytes of a kernel's source
WIDTH = 120  # characters a line
ORDER_LINE, PROJECT_LINE = "ORDER: dict[str, Any] = {}\n", 'PROJECT = ""\n'


@dataclass(frozen=True)
class Parcel:
    """The kernel's source, how many files are in it, and how to tell other files: `tag` is part of the source."""

    source: str
    files: int
    tag: str


def pack(order: Order) -> Parcel:
    """Make the source.

    Raises:
        UsageError: it is larger than Kaggle takes.
    """
    contents = {name: path.read_bytes() for name, path in project_files().items()}
    tag = f"files={fingerprint({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})}"
    packed = "\n".join(textwrap.wrap(base64.b64encode(_archive(contents)).decode(), WIDTH))
    values = {
        "competition": order.competition,
        "run": order.run,
        "train": commands.arguments(order.config),
        "gpu": order.gpu,
        "internet": order.internet,
    }
    source = f"# {order.tag}\n# {tag}\n{RUNNER.read_text(encoding='utf-8')}"
    source = _filled(source, ORDER_LINE, f"ORDER: dict[str, Any] = {pprint.pformat(values, width=100)}\n")
    source = _filled(source, PROJECT_LINE, f'PROJECT = """\n{packed}\n"""\n')
    if (size := len(source.encode())) > LARGEST:
        raise UsageError(
            f"the kernel's source has {size:,} bytes, and Kaggle takes {LARGEST:,}: move what does not belong to the "
            "project out of its folder `pipeline`"
        )
    return Parcel(source, len(contents), tag)


def write(folder: Path, order: Order, parcel: Parcel, user: str) -> None:
    """Write the kernel's two files into `folder`."""
    atomic.write_bytes(folder / MAIN, parcel.source.encode())
    atomic.write_json(folder / METADATA, metadata(order, user))


def metadata(order: Order, user: str) -> dict[str, object]:
    """kernel-metadata.json.  `machine_shape` is what --accelerator of Kaggle's own command line sets."""
    values: dict[str, object] = {
        "id": f"{user}/{order.kernel}",
        "title": order.kernel,
        "code_file": MAIN,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": order.gpu,
        "enable_tpu": False,
        "enable_internet": order.internet,
        "competition_sources": [order.competition],
        "dataset_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }
    if order.gpu and order.accelerator is not None:
        values["machine_shape"] = order.accelerator
    return values


def _archive(contents: dict[str, bytes]) -> bytes:
    """A tar.xz with nothing in it but names and contents."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return lzma.compress(stream.getvalue())


def _filled(source: str, line: str, filling: str) -> str:
    assert source.count(line) == 1, line
    return source.replace(line, filling)
