import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Paths
from pipeline.errors import BadData, UsageError
from pipeline.kernels import outputs
from pipeline.kernels.order import Order
from pipeline.recipes import PRESETS
from pipeline.store import runs
from pipeline.store.runs import Run
from tests.support import SLUG, paths_in, predicted_place, tree, write_run

RUN = "tiny-run"
ORDER = Order(SLUG, RUN, PRESETS["rehearsal"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and its CSV, as train and predict leave it."""
    return predicted_place(tmp_path_factory.mktemp("made"))


@pytest.fixture
def come(made: Path, tmp_path: Path) -> Path:
    """A kernel's output: just the files that are wanted."""
    for name in outputs.wanted(ORDER):
        (tmp_path / "come" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / name, tmp_path / "come" / name)
    return tmp_path / "come"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_in(tmp_path / "here")


def test_what_was_ordered_is_published_whole(come: Path, paths: Paths) -> None:
    assert outputs.here(ORDER, paths) is None
    outputs.verify(ORDER, come)
    outputs.publish(ORDER, come, paths)
    assert tree(paths.models / RUN) == tree(come / "data/models" / RUN)
    assert tree(paths.submissions) == tree(come / "submissions")
    assert runs.latest(paths.models) == RUN
    found = outputs.here(ORDER, paths)
    assert found == Run.open(paths.models, RUN)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_result(folder: Path, **changes: object) -> None:
    """With a manifest that agrees."""
    result, manifest = (folder / f"data/models/{RUN}/{name}.json" for name in ("result", "manifest"))
    edit(result, **changes)
    record = {"size": result.stat().st_size, "sha256": hashlib.sha256(result.read_bytes()).hexdigest()}
    edit(manifest, files=json.loads(manifest.read_text())["files"] | {"result.json": record})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_file_in_manifest(folder: Path) -> None:
    path = folder / f"data/models/{RUN}/manifest.json"
    files = json.loads(path.read_text())["files"]
    (folder / "outside").write_text("x")
    record = {"size": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    edit(path, files=files | {"../../../outside": record})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda folder: flip(folder / f"data/models/{RUN}/weights.safetensors"),
    "a bit of the metrics": lambda folder: flip(folder / f"data/models/{RUN}/metrics.jsonl"),
    "no manifest": lambda folder: (folder / f"data/models/{RUN}/manifest.json").unlink(),
    "a manifest that leads outside": other_file_in_manifest,
    "a result of another kind": lambda folder: edit(folder / f"data/models/{RUN}/result.json", epochs="3"),
    "a time that no clock shows": lambda folder: edit_result(folder, seconds=1e299),
    "a device of two lines": lambda folder: edit_result(folder, device="cpu\nkernel: fine"),
    "no CSV": lambda folder: (folder / f"submissions/{RUN}.csv").unlink(),
    "an edited CSV": lambda folder: flip(folder / f"submissions/{RUN}.csv"),
    "the CSV of another run": lambda folder: edit(folder / f"submissions/{RUN}.json", run="other"),
    "the CSV of other weights": lambda folder: edit(folder / f"submissions/{RUN}.json", weights_sha256="0" * 64),
    "the CSV of another competition": lambda folder: edit(folder / f"submissions/{RUN}.json", competition="other"),
    "no evidence": lambda folder: (folder / f"submissions/{RUN}.npz").unlink(),
    "evidence that is none": lambda folder: (folder / f"submissions/{RUN}.npz").write_bytes(b"PK\3\4"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_else_is_refused(come: Path, damage: str) -> None:
    DAMAGES[damage](come)
    with pytest.raises(
        BadData, match=r"the kernel's output is not what was ordered \(.*run the same command again"
    ) as told:
        outputs.verify(ORDER, come)
    assert str(come) not in str(told.value) and "train the run again" not in str(told.value)


def test_evidence_that_unpacks_to_too_much_is_not_read(come: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npz = come / f"submissions/{RUN}.npz"
    with zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hidden_probabilities.npy", bytes(10**6))
    assert npz.stat().st_size < 10_000
    monkeypatch.setitem(outputs.LARGEST, ".npz", 999_999)
    with pytest.raises(BadData, match="unpacks to 1,000,000 bytes"):
        outputs.verify(ORDER, come)


@pytest.mark.parametrize(
    "order",
    [
        dataclasses.replace(ORDER, competition="other"),
        dataclasses.replace(ORDER, config=dataclasses.replace(ORDER.config, seed=1)),
    ],
)
def test_a_run_of_another_order_is_refused(come: Path, order: Order) -> None:
    with pytest.raises(BadData, match="has other options than this order"):
        outputs.verify(order, come)


def test_what_is_here_and_is_another_is_not_replaced(come: Path, paths: Paths, made: Path) -> None:
    outputs.publish(ORDER, come, paths)
    other = dataclasses.replace(ORDER, config=dataclasses.replace(ORDER.config, seed=1))
    with pytest.raises(UsageError, match=r"has other options than this order; .* choose another --run, or --force"):
        outputs.here(other, paths)
    flip(paths.submissions / f"{RUN}.csv")
    with pytest.raises(UsageError, match="edited since predict wrote it"):
        outputs.here(ORDER, paths)
    (paths.submissions / f"{RUN}.csv").unlink()
    assert outputs.here(ORDER, paths) is None  # the kernel's may come
    (paths.models / RUN / "checkpoint.pt").touch()
    with pytest.raises(UsageError, match=f"was trained here, and `python -m pipeline.predict --run {RUN}` writes its"):
        outputs.here(ORDER, paths)
    (paths.models / RUN / "manifest.json").unlink()
    with pytest.raises(UsageError, match="unfinished"):
        outputs.here(ORDER, paths)


def test_the_csv_of_other_weights_is_not_taken_for_it(come: Path, paths: Paths, made: Path) -> None:
    outputs.publish(ORDER, come, paths)
    shutil.rmtree(paths.models / RUN)
    shutil.copytree(made / "data/processed", paths.processed)
    shutil.copytree(made / "data/raw", paths.raw)
    write_run(paths.models.parents[1], RUN)  # as long as untrained weights are the same it is the same run
    assert outputs.here(ORDER, paths) is not None
    shutil.rmtree(paths.models / RUN)
    with pytest.raises(UsageError, match="is of another run"):
        outputs.here(ORDER, paths)


def test_what_comes_has_a_place_of_its_own(tmp_path: Path) -> None:
    with outputs.incoming(tmp_path) as place:
        (place / "file").touch()
    assert not place.exists()
    place.mkdir()
    (place / "left by a kill").touch()
    with outputs.incoming(tmp_path) as again:
        assert again == place and not any(place.iterdir())
