"""Stage 2: data/raw/SLUG -> data/processed/SLUG: checked arrays, and no pickle files from here on.

    python -m pipeline.preprocess

Reads the pickles with our own reader, which runs no code from them, checks them, detects the pixel layout, and writes
plain .npy arrays with a manifest.  Needs no torch.
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, get_args

import click
import numpy as np
from numpy.typing import NDArray

from pipeline import cli, commands, console
from pipeline.config import IMAGE_SIZE, Paths
from pipeline.console import Meter, duration
from pipeline.errors import BadData, Log, MissingInput
from pipeline.store import atomic, cifar, links
from pipeline.store.manifest import NAME, FileRecord, Manifest, records, strangers, versions
from pipeline.store.processed import ArrayName


def preprocess(slug: str, paths: Paths, log: Log, *, ids_key: str | None = None, force: bool = False) -> Path:
    """Turn the download into checked arrays in data/processed/SLUG, and return that folder.

    Args:
        ids_key: key of the ids in the test set's file, or cifar.NO_KEY to number them from 0; None: "ids", or unless
            `force` as in the existing arrays.

    Raises:
        MissingInput: there is no download.
        BadData: a file is damaged, hostile or has another shape; nothing is written then.
    """
    raw, target = _raw_folder(slug, paths), paths.processed / slug
    log(f"preprocess: {raw}")
    sources = _sources(raw)
    inputs = {name: record.sha256 for name, record in sources.items()}
    if not force and _is_current(target, inputs, ids_key):
        console.show(f"{target}: complete for this download, nothing to do")
        return target

    began = monotonic()
    batches = cifar.find_batches(raw)
    if batches is None:
        raise MissingInput(f"{raw} has no CIFAR-10 batches: put {cifar.BATCHES}, unpacked or as a link, into it")
    train = cifar.read_batches(batches, cifar.TRAIN_BATCHES)
    test = cifar.read_batches(batches, (cifar.TEST_BATCH,))
    hidden_file = cifar.find_hidden(raw)
    hidden = cifar.read_hidden(hidden_file, ids_key, commands.command("preprocess", slug, paths, "--ids-key"))
    facts = {
        "class_names": cifar.read_class_names(batches),
        "train": {"images": len(train.labels)},
        "test": {"images": len(test.labels)},
        "hidden": {
            "file": hidden_file.name,
            "images": len(hidden),
            "ids_key": hidden.ids_key,
            "layout": hidden.layout,
            "channel_order": cifar.channel_order(hidden.sample(), train.images),
        },
    }
    _report(facts)
    others = strangers(target, *(f"{name}.npy" for name in get_args(ArrayName)))
    with atomic.lock(target), atomic.replacing_folder(target, log if others else None) as folder:
        files = _write(folder, train, test, hidden, log)
        Manifest("preprocess", files, inputs, facts, versions("numpy")).write(folder)
    console.show(f"{target}: {len(files)} arrays, in {duration(monotonic() - began)}")
    return target


def _is_current(target: Path, inputs: Mapping[str, str], ids_key: str | None) -> bool:
    """Whether the arrays in `target` are from these inputs and `ids_key` (None: any)."""
    manifest = Manifest.read(target)
    if manifest is None or manifest.inputs != inputs or manifest.missing(target):
        return False
    # Older versions did not record it, and numbered images whose ids had another key.
    known = manifest.facts.get("hidden", {}).get("ids_key", "not known")
    return known != "not known" and ids_key in (None, known or cifar.NO_KEY)


def _raw_folder(slug: str, paths: Paths) -> Path:
    """raw/SLUG, or raw itself if it is laid out like a download."""
    raw = paths.raw
    links.require_live(raw / slug)
    if (raw / slug).is_dir():
        return raw / slug
    if cifar.is_download(raw):
        return raw
    raise MissingInput(f"{raw / slug} does not exist: run `{commands.command('download', slug, paths)}` first")


def _sources(raw: Path) -> dict[str, FileRecord]:
    """Records of the files to read: from the download's manifest, or from the files themselves.

    A flipped bit in the pixels loads without an error, so every file is compared with the manifest.
    """
    manifest = Manifest.read(raw)
    if manifest is None:
        return records(raw, cifar.find_files(raw))
    if changed := manifest.changed(raw):
        file, again = raw / changed[0], manifest.download_again(raw)
        if not file.is_file() or file.is_symlink():  # download replaces those
            raise BadData(f"{file} is missing or changed: run `{again}`")
        own = f"If you changed it yourself, move {raw / NAME} away instead"  # then it is laid out by hand
        raise BadData(f"{file} changed since it was downloaded: move it away, then run `{again}`\n  {own}")
    return dict(manifest.files)


def _write(
    folder: Path, train: cifar.Labelled, test: cifar.Labelled, hidden: cifar.Hidden, log: Log
) -> dict[str, FileRecord]:
    """Write the arrays; the test images in chunks, since they may not fit into memory."""
    arrays: dict[ArrayName, NDArray[Any]] = {
        "train_images": train.images, "train_labels": train.labels,
        "test_images": test.images, "test_labels": test.labels, "hidden_ids": hidden.ids,
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(hidden), IMAGE_SIZE, IMAGE_SIZE, 3)}
    with (
        Meter("preprocess: writing the test images,", len(hidden), "images", log) as meter,
        (folder / "hidden_images.npy").open("wb") as stream,
    ):
        np.lib.format.write_array_header_1_0(stream, header)
        for images in hidden.chunks():
            stream.write(np.ascontiguousarray(images).data)
            meter.add(len(images))
    return records(folder, folder.glob("*.npy"))


def _report(facts: Mapping[str, Any]) -> None:
    """Show what was detected, and warn of common traps."""
    train, test, hidden = facts["train"], facts["test"], facts["hidden"]
    counts = f"{train['images']:,} training, {test['images']:,} holdout and {hidden['images']:,} test images"
    ids = "no ids: rows count from 0" if hidden["ids_key"] is None else "ids from the file"
    console.show(f"{counts}; layout {hidden['layout']}, {hidden['channel_order']}; {ids}")
    if hidden["layout"] not in cifar.EXPECTED:
        console.show("WARNING: its shape suggests another layout, in which every image would be scrambled")
    if hidden["channel_order"] == "BGR":
        console.show("WARNING: red and blue seem swapped in the test set (BGR?); predict tries to revert it")


@cli.stage_command("""
python -m pipeline.preprocess                             the default competition
python -m pipeline.preprocess --raw DIR --processed OUT   other folders; DIR may be the download folder itself
""")
@cli.competition
@cli.raw
@cli.processed
@click.option(
    "--ids-key",
    metavar="KEY",
    help="Key of the ids in the test set's file, if not ids; none: number the images from 0.",
)
@cli.force
def command(slug: str, paths: Paths, ids_key: str | None, force: bool) -> None:
    """Turn the download into checked arrays in data/processed/SLUG.

    Runs no code from downloaded files.  Detects scrambled pixels and swapped channels.
    """
    preprocess(slug, paths, console.log, ids_key=ids_key, force=force)
    cli.announce("train", slug, paths)


main = partial(cli.run, command, "preprocess")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
