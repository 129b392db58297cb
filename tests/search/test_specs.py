import pytest

from pipeline.errors import UsageError
from pipeline.recipes import PRESETS
from pipeline.search.space import Choice, Floats, Integers
from pipeline.search.specs import kinds, parse

BASE = PRESETS["fast"]


@pytest.mark.parametrize(
    ("search", "axis"),
    [
        ("learning_rate=log:0.02:1", Floats("learning_rate", 0.02, 1.0, log=True)),
        ("weight-decay=1e-5:1e-2", Floats("weight_decay", 1e-5, 1e-2, log=False)),
        ("cutout=int:0:16", Integers("cutout", 0, 16, 1, log=False)),
        ("cutout=int:0:15:4", Integers("cutout", 0, 12, 4, log=False)),
        ("batch-size=log:16:256", Integers("batch_size", 16, 256, 1, log=True)),
        ("batch_size=64,128,64", Choice("batch_size", (64, 128))),
        ("dropout=0, 0.5", Choice("dropout", (0.0, 0.5))),
        ("optimizer=sgd,adamw", Choice("optimizer", ("sgd", "adamw"))),
        ("decay_norms=true,False", Choice("decay_norms", (True, False))),
        ("model=fast,wide", Choice("model", ("fast", "wide"))),
        ("seed=7", Choice("seed", (7,))),
    ],
)
def test_a_spec_becomes_an_axis(search: str, axis: Choice | Floats | Integers) -> None:
    assert parse(BASE, [search]).axes == (axis,)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("learning_rat=0:1", "learning_rat is no field; the fields are model, validation, "),
        ("preset=fast,best", "preset is no field"),
        ("distillation_weight=0:1", "is no field"),
        ("learning_rate", "write FIELD=SPEC, SPEC being log:LOW:HIGH"),
        ("optimizer=sgd,lion", "'lion' is not one of adam, adamw, sgd, rmsprop"),
        ("model=fast,vgg", "'vgg' is not one of paper, fast"),
        ("decay_norms=yes", "'yes' is not one of true, false"),
        ("optimizer=0:1", "give choices, as in optimizer=adam,adamw,sgd,rmsprop"),
        ("decay-norms=int:0:1", "give choices, as in decay-norms=True,False"),
        ("cutout=0:16", "cutout is a whole number: give int:LOW:HIGH[:STEP], log:LOW:HIGH or A,B,C"),
        ("dropout=int:0:1", "dropout is a number: give LOW:HIGH, log:LOW:HIGH or A,B,C"),
        ("cutout=int:0:16:4:1", "cutout is a whole number: give"),
        ("cutout=int:0:16:0", "a step of 0: at least 1"),
        ("cutout=4.5,8", "'4.5' is no whole number"),
        ("dropout=", "'' is no number"),
        ("dropout=0.1:high", "'high' is no number"),
        ("dropout=0:nan", "nan is not finite"),
        ("dropout=0.5:0.1", "0.5 is above 0.1"),
        ("weight_decay=log:0:1", "the logarithm of 0.0: begin above 0"),
        ("dropout=0:1", "--search dropout: 1.0 is refused in every trial (--dropout 1: from 0 to below 1)"),
        ("crop_padding=2,17", "--search crop_padding: 17 is refused in every trial"),
        ("epochs=int:0:3", "--search epochs: 0 is refused in every trial (--epochs 0: at least 1)"),
    ],
)
def test_a_wrong_spec_is_refused_with_what_would_fit(search: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(BASE, [search])
    assert message in str(error.value)


def test_a_field_is_searched_once_and_at_least_one_is() -> None:
    with pytest.raises(UsageError, match="--search cutout is given twice"):
        parse(BASE, ["cutout=0,4", "cutout=8"])
    with pytest.raises(UsageError, match="nothing to search over"):
        parse(BASE, [])


def test_a_spec_survives_its_own_spelling() -> None:
    for search in (
        "learning_rate=log:0.02:1",
        "dropout=0:0.3",
        "cutout=int:0:16:4",
        "batch_size=log:16:64",
        "flip=none",
    ):
        space = parse(BASE, [search])
        assert parse(BASE, [f"{space.axes[0].field}={space.axes[0].spec}"]) == space


def test_every_option_of_training_but_the_teachers_can_be_searched() -> None:
    from pipeline import cli_recipes

    assert set(kinds()) == {"model", *cli_recipes.fields()} - set(cli_recipes.TAUGHT)
