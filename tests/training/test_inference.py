import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.errors import BadData
from pipeline.model.resnet import ResNet, build, folded, normalise
from pipeline.recipes import MODELS, ValidationSet
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import Tta
from pipeline.training import inference
from pipeline.training.batches import split
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages, Member, Panel, bn_adapted, evaluate, tta_views
from tests.support import SLUG, prepare, write_run
from tests.support import images as smooth_images

CPU = Device("cpu", "fp32")
CPU_BF16 = Device("cpu", "bf16")
Images = NDArray[np.uint8]


@pytest.fixture
def images() -> Images:
    return np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


@torch.no_grad()
def logits(model: ResNet, images: Images) -> torch.Tensor:
    found: torch.Tensor = model(normalise(torch.from_numpy(images)))
    return found


def centred(seed: int, images: Images) -> ResNet:
    """An untrained model that gives images like these all kinds of labels, not one and the same."""
    model = build(MODELS["rehearsal"], seed).eval()
    with torch.no_grad():
        model.fc.bias.sub_(logits(model, images).mean(0))
    return model


def member(name: str, seed: int, images: Images) -> Member:
    return Member(name, centred(seed, images), CPU)


def labels(members: list[Member], pixels: Images, tta: Tta) -> NDArray[np.int64]:
    """The most probable on average."""
    found: NDArray[np.int64] = inference.probabilities(members, pixels, tta).mean(dim=(0, 1)).argmax(dim=1).numpy()
    return found


# --- evaluation -------------------------------------------------------------------------------------------


def test_evaluation_equals_the_plain_way() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)  # more than one batch
    truth = generator.integers(0, 10, 600)
    model = build(MODELS["rehearsal"], seed=0)
    loss, accuracy = evaluate(model, EvaluationImages(pixels, truth, CPU.torch_device), CPU)
    expected = logits(model.eval(), pixels)
    assert loss == pytest.approx(cross_entropy(expected, torch.tensor(truth)).item(), rel=1e-5)
    assert accuracy == pytest.approx(100 * (expected.argmax(1).numpy() == truth).mean())


def test_agreement_is_of_labels_in_bf16_and_fp32() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (530, 32, 32, 3), dtype=np.uint8)  # more than one batch
    data = EvaluationImages(pixels, np.zeros(530, dtype=np.int64), CPU.torch_device)
    model = centred(0, pixels)
    found = inference.bf16_agreement(model, data, CPU)
    with torch.no_grad(), CPU_BF16.autocast():
        coarse = folded(model)(normalise(data.images)).argmax(1)
    assert found == pytest.approx(100 * (logits(model, pixels).argmax(1) == coarse).float().mean().item(), abs=0.5)
    assert 20 < found < 99  # noise looks alike to an untrained model, so bf16 changes many a label
    nn.init.zeros_(model.fc.weight)
    with torch.no_grad():
        model.fc.bias.copy_(torch.arange(10.0))
    assert inference.bf16_agreement(model, data, CPU) == 100


# --- test-time augmentation -------------------------------------------------------------------------------


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("flip-shift", 6)])
def test_views_are_the_images_their_shifts_and_the_mirror_images_of_these(tta: Tta, count: int) -> None:
    pixels = torch.randint(1, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    up_left, down_right = torch.zeros_like(pixels), torch.zeros_like(pixels)
    up_left[:, :31, :31] = pixels[:, 1:, 1:]
    down_right[:, 1:, 1:] = pixels[:, :31, :31]
    plain = [pixels, up_left, down_right]
    expected = {"none": plain[:1], "flip": [pixels, pixels.flip(2)], "flip-shift": plain + [x.flip(2) for x in plain]}
    views = tta_views(pixels, tta)
    assert len(views) == count and all(view.is_contiguous() for view in views)
    assert all(torch.equal(view, other) for view, other in zip(views, expected[tta], strict=True))


# --- batch-norm adaptation --------------------------------------------------------------------------------


@pytest.fixture
def photographs() -> Images:
    """Between 20 and 150, so that they can be made brighter."""
    return (20 + smooth_images(60) // 2).astype(np.uint8)


@pytest.fixture
def trained(photographs: Images) -> ResNet:
    """As trained on these images, as far as the norms know."""
    model = build(MODELS["rehearsal"], 0).train()
    for norm in norms(model):
        norm.momentum = 1.0
    logits(model, photographs)
    return model.eval()


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def brighter(images: Images) -> Images:
    return images + np.uint8(100)


def flatter(images: Images) -> Images:
    return (images // 3).astype(np.uint8)


@pytest.mark.parametrize(("batch", "part"), [(250, 60), (25, 20)])  # 3 batches of 20 rather than 25, 25 and 10
def test_statistics_move_as_the_images_do(
    batch: int, part: int, photographs: Images, trained: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "ADAPTATION_BATCH", batch)
    trained.get_buffer("bn1.running_mean").copy_(torch.arange(16.0))  # as training may have left them
    trained.get_buffer("bn1.running_var").copy_(torch.linspace(0.5, 2, 16))
    found = bn_adapted(trained, CPU, flatter(photographs), photographs).bn1

    def by_hand(these: Images) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            parts = trained.conv1(normalise(torch.from_numpy(these))).split(part)
        means, variances = ([of(each, dim=(0, 2, 3)) for each in parts] for of in (torch.mean, torch.var))
        return torch.stack(means).mean(dim=0), torch.stack(variances).mean(dim=0)

    (mean_there, var_there), (mean_here, var_here) = by_hand(flatter(photographs)), by_hand(photographs)
    mean, var = torch.arange(16.0) + mean_there - mean_here, torch.linspace(0.5, 2, 16) * var_there / var_here
    torch.testing.assert_close(found.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.running_var, var, rtol=1e-4, atol=1e-5)


def test_adaptation_leaves_the_model_itself_and_all_weights_alone(trained: ResNet, photographs: Images) -> None:
    trained.train()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    found = bn_adapted(trained, CPU, brighter(photographs), photographs)
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in before.items())
    assert trained.training and not any(module.training for module in found.modules())
    assert all(norm.momentum == 1.0 for norm in norms(trained))
    weights = dict(found.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in trained.named_parameters())
    assert not torch.equal(found.get_buffer("bn1.running_mean"), before["bn1.running_mean"])


def test_two_images_or_a_silent_channel_give_finite_predictions(trained: ResNet, photographs: Images) -> None:
    torch.nn.init.zeros_(trained.conv1.weight[3].detach())
    flat = np.full_like(photographs, 90)  # no layer but for its border varies
    for reference in (photographs[2:4], flat, photographs):
        assert logits(bn_adapted(trained, CPU, photographs[:2], reference), photographs).isfinite().all()


def test_the_papers_model_adapts_in_bf16(photographs: Images) -> None:
    model = build(MODELS["paper"], 0).eval()
    found = bn_adapted(model, CPU_BF16, photographs[:4], photographs[:4])
    assert all(torch.equal(buffer, model.get_buffer(name)) for name, buffer in found.named_buffers())


# --- several models ---------------------------------------------------------------------------------------


def test_probabilities_that_are_not_finite_name_their_run(images: Images) -> None:
    broken = member("broken", 1, images)
    nn.init.constant_(broken.folded.fc.weight, float("nan"))
    with pytest.raises(BadData, match="run broken predicts numbers that are not finite"):
        labels([member("fine", 0, images), broken], images, "none")


@pytest.mark.parametrize(("measured", "precision"), [(None, "fp32"), (99.89, "fp32"), (99.9, "bf16"), (100.0, "bf16")])
def test_bf16_is_used_only_where_it_agrees(tmp_path: Path, measured: float | None, precision: str) -> None:
    prepare(tmp_path)
    write_run(tmp_path)
    run = Run.open(tmp_path / "data/models", None)
    run = dataclasses.replace(run, result=dataclasses.replace(run.result, bf16_agreement=measured))
    for device, expected in ((CPU_BF16, precision), (CPU, "fp32")):
        (loaded,) = inference.load([run], device)
        assert loaded.device.precision == expected


@pytest.fixture
def data(tmp_path: Path) -> Processed:
    prepare(tmp_path)
    return Processed.open(tmp_path / "data/processed" / SLUG)


def test_predictions_are_in_the_order_of_the_rows_whatever_the_batch(data: Processed) -> None:
    pixels = np.array(data.array("hidden_images"))
    members, rows = [member("a", 0, pixels), member("b", 1, pixels)], np.array([3, 0, 29, 7])
    outputs = inference.predict(Panel(members, "flip", 3), data, "hidden_images", rows)
    expected = inference.probabilities(members, pixels[rows], "flip").mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-6)
    assert outputs.members.tolist() == [labels([m], pixels[rows], "none").tolist() for m in members]
    assert outputs.truth is None and len(set(outputs.members.flatten().tolist())) > 2


def test_features_are_what_the_linear_layer_sees(data: Processed) -> None:
    pixels = np.array(data.array("hidden_images"))
    one = member("a", 0, pixels)
    features = torch.from_numpy(inference.features(one, pixels[::9]))
    with torch.no_grad():
        torch.testing.assert_close(one.model.fc(features), logits(one.model, pixels[::9]))


def test_holdout_accuracy_is_of_the_images_that_validated_all(tmp_path: Path, data: Processed) -> None:
    pixels, truth = np.array(data.array("train_images")), data.array("train_labels")
    members = [member("a", 0, pixels), member("b", 1, pixels)]
    write_run(tmp_path)
    run = Run.open(tmp_path / "data/models", None)

    def scores(validation: ValidationSet) -> tuple[float, float, str]:
        card = dataclasses.replace(run.card, config=dataclasses.replace(run.card.config, validation=validation))
        ensemble = Ensemble(tuple(dataclasses.replace(run, name=m.name, card=card) for m in members))
        holdout, validated = inference.predict_holdout(ensemble, Panel(members, "flip", 7), data)
        assert validated is not None
        return holdout.accuracy, validated.accuracy, inference.holdout_line(ensemble, holdout, validated)

    def right(of: list[Member], images: Images, truth: NDArray[np.int64], tta: Tta = "flip") -> float:
        return float((labels(of, images, tta) == truth).mean())

    (holdout, validated, line), test = scores("split"), (np.array(data.array("test_images")), data.array("test_labels"))
    rows = split(truth, run.card.config).validation
    assert rows is not None and validated == pytest.approx(right(members, pixels[rows], truth[rows]))
    assert holdout == pytest.approx(right(members, *test))
    alone = {m.name: right([m], *test, "none") for m in members}
    best = max(alone, key=alone.__getitem__)
    gain = f"{100 * (holdout - alone[best]):+.2f} points over {best} alone, without TTA"
    assert line == f"holdout {100 * holdout:.2f}% ({gain}), validation {100 * validated:.2f}%"
    assert holdout != validated and len(set(alone.values())) == 2  # or it would prove nothing
    holdout, validated, _ = scores("test_batch")
    assert holdout == validated
