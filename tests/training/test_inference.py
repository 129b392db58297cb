import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import console
from pipeline.errors import BadData
from pipeline.model import resnet
from pipeline.model.resnet import ResNet, build, folded, normalise
from pipeline.recipes import MODELS
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest, records
from pipeline.store.processed import Processed
from pipeline.store.runs import Ensemble, Run
from pipeline.store.submissions import Tta
from pipeline.training import inference
from pipeline.training.batches import split
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages, Member, Panel
from tests.support import SLUG, prepare, write_run

CPU = Device(torch.device("cpu"), "fp32")
CPU_BF16 = Device(torch.device("cpu"), "bf16")


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


def centred(seed: int, images: NDArray[np.uint8]) -> ResNet:
    """An untrained network that gives images like these all kinds of labels, not one and the same."""
    network = build(MODELS["rehearsal"], seed).eval()
    with torch.no_grad():
        network.fc.bias.sub_(network(normalise(torch.from_numpy(images))).mean(0))
    return network


def labels(members: list[Member], pixels: NDArray[np.uint8], tta: Tta) -> NDArray[np.int64]:
    """The most probable on average."""
    found: NDArray[np.int64] = inference.answers(members, pixels, tta).mean(dim=(0, 1)).argmax(dim=1).numpy()
    return found


def member(name: str, seed: int, images: NDArray[np.uint8]) -> Member:
    return inference.member(name, centred(seed, images), CPU)


def test_probabilities_are_the_mean_over_image_and_mirror_image(images: NDArray[np.uint8]) -> None:
    one = member("a", 0, images)
    pixels = torch.from_numpy(images)
    found = inference.by_view(one.network, pixels, CPU, "flip").mean(dim=0)
    with torch.no_grad():
        by_hand = [one.network(normalise(view)).softmax(1) for view in (pixels, pixels.flip(2))]
    torch.testing.assert_close(found, (by_hand[0] + by_hand[1]) / 2)
    assert found.shape == (12, 10) and found.dtype == torch.float32


def test_the_average_of_several_is_of_their_probabilities(images: NDArray[np.uint8]) -> None:
    members = [member("a", 0, images), member("b", 1, images)]
    pixels = torch.from_numpy(images)
    each = [inference.by_view(m.network, pixels, CPU, "flip-shift").mean(dim=0) for m in members]
    found = labels(members, images, "flip-shift")
    assert np.array_equal(found, ((each[0] + each[1]) / 2).argmax(1).numpy())
    assert len(set(found.tolist())) > 2


def test_answers_that_are_not_finite_name_their_run(images: NDArray[np.uint8]) -> None:
    broken = member("broken", 1, images)
    nn.init.constant_(broken.answering.fc.weight, float("nan"))
    with pytest.raises(BadData, match="run broken answers"):
        labels([member("fine", 0, images), broken], images, "none")


def test_agreement_is_of_labels_in_bf16_and_fp32() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (530, 32, 32, 3), dtype=np.uint8)  # more than one batch
    data = EvaluationImages(pixels, np.zeros(530, dtype=np.int64), CPU.torch_device)
    network = centred(0, pixels)
    found = inference.agreement(network, data, CPU)
    with torch.no_grad():
        exact = network(normalise(data.images)).argmax(1)
        with CPU_BF16.autocast():
            coarse = folded(network)(normalise(data.images)).argmax(1)
    assert found == pytest.approx(100 * (exact == coarse).float().mean().item(), abs=0.5)
    assert 20 < found < 99  # noise looks alike to an untrained network, so bf16 changes many a label
    nn.init.zeros_(network.fc.weight)
    with torch.no_grad():
        network.fc.bias.copy_(torch.arange(10.0))
    assert inference.agreement(network, data, CPU) == 100


@pytest.mark.parametrize(("measured", "precision"), [(None, "fp32"), (99.89, "fp32"), (99.9, "bf16"), (100.0, "bf16")])
def test_bf16_is_used_only_where_it_agrees(tmp_path: Path, measured: float | None, precision: str) -> None:
    prepare(tmp_path)
    write_run(tmp_path)
    run = Run.open(tmp_path / "data/models", None)
    run = dataclasses.replace(run, result=dataclasses.replace(run.result, bf16_agreement=measured))
    (loaded,) = inference.load([run], CPU_BF16)
    assert loaded.device.precision == precision
    (loaded,) = inference.load([run], CPU)
    assert loaded.device.precision == "fp32"


def change(folder: Path, network: ResNet | None = None, **config: Any) -> None:
    """Give a run other weights, or another config."""
    card = runs.RunCard.read(folder)
    if network is not None:
        resnet.save(folder / runs.WEIGHTS, network.state_dict(), network.config)
    card = dataclasses.replace(card, config=dataclasses.replace(card.config, **config))
    atomic.write_json(folder / runs.CONFIG, card.to_dict())
    names = (runs.CONFIG, runs.WEIGHTS, runs.RESULT, runs.METRICS)
    Manifest("train", records(folder, [folder / name for name in names])).write(folder)


def test_local_accuracy_is_measured_on_the_images_that_validated_all(tmp_path: Path) -> None:
    prepare(tmp_path)
    folders = [write_run(tmp_path, name, seed) for seed, name in enumerate("ab")]
    models, nowhere = tmp_path / "data/models", tmp_path / "data/pretrained"
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    for seed, folder in enumerate(folders):
        change(folder, centred(seed, np.array(data.array("train_images"))))

    def measured() -> tuple[Ensemble, list[Member], inference.Local]:
        ensemble = Ensemble.open(models, nowhere, ["a", "b"])
        members = inference.load(ensemble.runs, CPU)
        said = inference.ask_locally(ensemble, Panel(members, "flip", 7), data)
        return ensemble, members, inference.worth(ensemble, *said)

    def right(members: list[Member], images: NDArray[np.uint8], truth: NDArray[np.int64]) -> float:
        return float(100 * (labels(members, images, "flip") == truth).mean())

    ensemble, members, local = measured()
    test_images, test_labels = np.array(data.array("test_images")), data.array("test_labels")
    assert local.test == pytest.approx(right(members, test_images, test_labels))
    rows = split(data.array("train_labels"), ensemble.runs[0].card.config).validation
    assert rows is not None and local.validation == pytest.approx(
        right(members, data.array("train_images")[rows], data.array("train_labels")[rows])
    )
    plain = {m.name: 100 * (labels([m], test_images, "none") == test_labels).mean() for m in members}
    assert local.alone == pytest.approx(plain[local.best]) == max(plain.values())
    assert local.test != local.validation and len(set(plain.values())) == 2  # or it would prove nothing

    change(folders[1], validation_fraction=0.2)
    assert measured()[2].validation is None
    for folder in folders:
        change(folder, validation="test_batch")
    *_, local = measured()
    assert local.validation == local.test


def test_who_is_asked_for_long_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "FIRST_LINE", 0.0)
    monkeypatch.setattr(console, "LINES", 0.0)
    prepare(tmp_path)
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    lines: list[str] = []
    panel = Panel([member("a", 0, np.array(data.array("hidden_images")))], "none", 10, lines.append)
    inference.ask(panel, data, "test_images", np.arange(20))
    inference.ask(panel, data, "hidden_images", np.arange(30))
    told = [line.split(", ")[0] for line in lines]
    assert told == [*(f"predict: test_batch {share} %" for share in (50, 100)),
                    *(f"predict: hidden images {share} %" for share in (33, 66, 100))]  # fmt: skip
    assert lines[3].endswith(" to go") and " images/s, 0:00:00" in lines[3]


def test_what_is_said_is_in_the_order_of_the_rows_whatever_the_batch(tmp_path: Path) -> None:
    prepare(tmp_path)
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    images = np.array(data.array("hidden_images"))
    members, rows = [member("a", 0, images), member("b", 1, images)], np.array([3, 0, 29, 7])
    said = inference.ask(Panel(members, "flip", 3), data, "hidden_images", rows)
    np.testing.assert_allclose(
        said.probabilities, inference.answers(members, images[rows], "flip").mean(dim=(0, 1)).numpy(), atol=1e-6
    )
    assert said.members.tolist() == [labels([m], images[rows], "none").tolist() for m in members]
    assert said.truth is None and len(set(said.members.flatten().tolist())) > 2


def test_features_are_what_the_linear_layer_sees(tmp_path: Path) -> None:
    prepare(tmp_path)
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    images = np.array(data.array("hidden_images"))
    one = member("a", 0, images)
    rows, features = inference.sampled_features(one, data, "hidden_images", 4)
    assert rows.tolist() == [0, 9, 19, 29]
    with torch.no_grad():
        logits = one.network.fc(torch.from_numpy(features))
        torch.testing.assert_close(logits, one.network(normalise(torch.from_numpy(images[rows]))))
    assert len(inference.sampled_features(one, data, "hidden_images", 1000)[0]) == 30
