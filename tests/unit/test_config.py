"""The schema of the workflow file: what it takes, and how it refuses the rest."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tfapp.config import load_config
from tfapp.config_rows import DataSection
from tfapp.config_sections import (
    AttackSection,
    BoardSection,
    DistillSection,
    EvaluateSection,
    ExportSection,
    HardwareSection,
    ModelSection,
    PhaseSection,
    SourceSection,
    TrainSection,
    VerifySection,
)
from tfapp.errors import ConfigError

WORKFLOWS = Path(__file__).parents[2] / "scripts" / "workflows"
MINIMAL = """
name = "reviews"
[data]
train = "reviews.csv"
[[transfer.phases]]
train = "head"
epochs = 2
learning_rate = 1e-3
[[transfer.phases]]
train = { top = 2 }
epochs = 1
learning_rate = 5e-5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "workflow.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value)


def test_minimal_file_gets_the_defaults(tmp_path):
    config = load_config(write(tmp_path, MINIMAL))
    assert config.seed == 0
    assert config.model == ModelSection()
    assert config.train == TrainSection()
    assert config.verify.min_agreement == 0.99
    assert [phase.epochs for phase in config.transfer.phases] == [2, 1]
    assert config.transfer.phases[1].train.top == 2


def test_utf8_with_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "workflow.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(path).name == "reviews"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs = 2", "epochs = 0", "transfer.phases.0.epochs = 0: must be greater than or equal to 1"),
        ("epochs = 2", "epochs = 2.5", "transfer.phases.0.epochs = 2.5: must be a whole number"),
        ("epochs = 2", "epochs = true", "transfer.phases.0.epochs = True: must be a whole number"),
        ("epochs = 2", "", "transfer.phases.0.epochs: missing"),
        (
            "epochs = 2",
            "epochs = 2\nepoch = 3",
            "transfer.phases.0.epoch: unknown key; did you mean 'epochs'?",
        ),
        ('"head"', '"hed"', "transfer.phases.0.train = 'hed': choices: 'head', 'all', or { top = k }"),
        ("{ top = 2 }", "{ top = 0 }", "transfer.phases.1.train: choices: 'head', 'all'"),
        ("{ top = 2 }", "{ bottom = 2 }", "transfer.phases.1.train: choices: 'head', 'all'"),
        ("5e-5", "inf", "transfer.phases.1.learning_rate = inf: must be a finite number"),
        ("5e-5", "'5e-5'", "transfer.phases.1.learning_rate = '5e-5': must be a number"),
        ('"reviews.csv"', "3", "data.train = 3: must be a text in quotes"),
        ('"reviews.csv"', '""', "data.train = '': must not be empty"),
        ('"reviews.csv"', '"a"\ntext = ["a"]', "data.text = ['a']: must be a text in quotes"),
        ('"reviews.csv"', '"a"\nformat = "cvs"', "data.format = 'cvs': did you mean 'csv'"),
        ('"reviews.csv"', '"a"\ntest_fraction = 1.5', "data.test_fraction = 1.5: must be less than 1"),
        ('"reviews.csv"', '"a"\ndataset = "bbc-news"', "data: give either `dataset`"),
        ('train = "reviews.csv"', "", "data: give either `dataset`"),
        (
            'train = "reviews.csv"',
            'dataset = "bbc-new"',
            "data.dataset = 'bbc-new': no packaged data set (a path goes with `train`); "
            "did you mean 'bbc-news'?",
        ),
        ('train = "reviews.csv"', "dataset = 3", "data.dataset = 3: must be a text in quotes"),
        ('"reviews.csv"', '"a"\ntest_fraction = 0.6\nvalidation_fraction = 0.5', "leave no rows to train on"),
        ('name = "reviews"', 'name = "../up"', "name = '../up': it becomes a folder"),
        ('name = "reviews"', 'name = "-x"', "name = '-x': it becomes a folder"),
        ('name = "reviews"', f'name = "{"a" * 65}"', "it becomes a folder"),
        ('name = "reviews"', 'name = "a"\nsed = 1', "sed: unknown key; did you mean 'seed'?"),
        ('name = "reviews"', 'name = "a"\ntrain = 3', "train = 3: must be a section"),
        ("[data]", "[dta]", "dta: unknown key; did you mean 'data'"),
        ("[data]", "[train]\nloss = 'focl'\n[data]", "train.loss = 'focl': did you mean 'focal'?"),
        (
            "[data]",
            "[verify]\nmin_agreement = 99\n[data]",
            "verify.min_agreement = 99: must be less than or equal",
        ),
        ("[data]", "[export]\nvariants = []\n[data]", "export.variants = []: must not be empty"),
        (
            "[data]",
            "[export]\nvariants = ['texts']\n[data]",
            "export.variants.0 = 'texts': did you mean 'text'?",
        ),
        ("[data]", "[data", "not valid TOML"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_value_and_cure(tmp_path, old, new, expected):
    assert old in MINIMAL
    message = refusal(tmp_path, MINIMAL.replace(old, new, 1))
    assert expected in message
    assert "workflow.toml: " in message


def test_all_problems_are_told_at_once(tmp_path):
    text = MINIMAL.replace("epochs = 2", "epochs = 0").replace("reviews.csv", "x'\nformat='y")
    lines = refusal(tmp_path, text.replace('"x', "'x").replace('y"', "y'").replace("5e-5", "-1")).splitlines()
    assert [line.split(": ")[1].split(" = ")[0] for line in lines] == [
        "data.format",
        "transfer.phases.0.epochs",
        "transfer.phases.1.learning_rate",
    ]


def test_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError, match=r"no such workflow file; did you mean '.*workflow\.toml'"):
        load_config(tmp_path / "workflw.toml")


def test_a_folder_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    path = tmp_path / "workflow.toml"
    path.write_bytes('name = "crème"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8 at byte 10"):
        load_config(path)


def test_overrides_are_typed_as_toml_and_reach_lists(tmp_path):
    config = load_config(
        write(tmp_path, MINIMAL),
        [
            "transfer.phases.0.epochs=7",
            "train.loss=focal",
            "train.layer_decay = 0.5",
            'export.variants=["text"]',
            "transfer.phases.1.train={top = 1}",
            "data.train=https://x?a=b",
        ],
    )
    assert config.transfer.phases[0].epochs == 7
    assert config.train.loss == "focal"
    assert config.train.layer_decay == 0.5
    assert config.export.variants == ["text"]
    assert config.transfer.phases[1].train.top == 1
    assert config.data.train == "https://x?a=b"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.batch_size", "expected key=value"),
        ("=3", "expected key=value"),
        ("train..x=3", "expected key=value"),
        ("train.batch_size=many", "--set: train.batch_size = 'many': must be a whole number"),
        ("train.bach_size=3", "--set: train.bach_size: unknown key; did you mean 'batch_size'?"),
        ("transfer.phases.2.epochs=1", "transfer.phases is a list of 2"),
        ("transfer.phases.first.epochs=1", "transfer.phases is a list of 2"),
        ("name.x=1", "name is a value, so it has no key 'x'"),
        ("export.variants=[1", "is not a TOML value"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, expected):
    assert expected in refusal(tmp_path, MINIMAL, override)


def test_paths_are_relative_to_the_file_and_hold_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("TFAPP_DATA", str(tmp_path / "sets"))
    config = load_config(
        write(tmp_path, MINIMAL.replace('"reviews.csv"', '"${TFAPP_DATA}/a/*.csv"\ntest = "b.csv"'))
    )
    assert config.resolve(config.data.train) == str(tmp_path / "sets" / "a" / "*.csv")
    assert config.resolve(config.data.test) == str(tmp_path / "b.csv")


@pytest.mark.parametrize("given", ["validation", "test"])
def test_a_fraction_that_is_not_used_is_not_judged(tmp_path, given):
    fractions = "validation_fraction = 0.6\ntest_fraction = 0.6"
    text = MINIMAL.replace('"reviews.csv"', f'"reviews.csv"\n{given} = "other.csv"\n{fractions}')
    assert load_config(write(tmp_path, text)).data.test_fraction == 0.6


def test_folders_and_files_whose_names_look_like_patterns_are_no_patterns(tmp_path, monkeypatch):
    folder = tmp_path / "my[1] texts"
    folder.mkdir()
    monkeypatch.setenv("TFAPP_DATA", str(tmp_path / "sets*"))
    config = load_config(write(folder, MINIMAL))
    assert config.resolve("reviews.csv") == str(folder / "reviews.csv")
    assert config.resolve("part-*.csv") == str(tmp_path / "my[[]1] texts" / "part-*.csv")
    assert config.resolve("${TFAPP_DATA}/part-*.csv") == str(tmp_path / "sets[*]" / "part-*.csv")
    (folder / "a[1].csv").write_text("")
    assert config.resolve("a[1].csv") == str(folder / "a[1].csv")


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_workflows_fit_the_schema(path, monkeypatch, tmp_path):
    monkeypatch.setenv("TFAPP_DATA", str(tmp_path))
    config = load_config(path)
    assert config.name == path.stem
    assert config.transfer.phases


def test_an_unset_variable_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.delenv("TFAPP_DATA", raising=False)
    message = refusal(tmp_path, MINIMAL.replace("reviews.csv", "${TFAPP_DATA}/sst2/train.csv"))
    assert "the environment variable TFAPP_DATA is not set" in message
    assert "export TFAPP_DATA=" in message


def test_a_backbone_is_a_folder_when_one_lies_beside_the_file(tmp_path):
    path = write(tmp_path, MINIMAL + '[model]\nbackbone = "bert"\n')
    assert load_config(path).resolve_backbone() == "bert"
    (tmp_path / "bert").mkdir()
    assert load_config(path).resolve_backbone() == str(tmp_path / "bert")
    assert load_config(path, ["model.backbone=./other"]).resolve_backbone() == str(tmp_path / "other")


def test_weights_are_a_file_beside_the_workflow_and_go_with_images(tmp_path):
    images = MINIMAL.replace('"reviews.csv"', '"photos"\nkind = "image"')
    assert load_config(write(tmp_path, images)).resolve_weights() == "pretrained"
    named = images + '[model]\nweights = "net.h5"\n'
    config = load_config(write(tmp_path, named))
    with pytest.raises(ConfigError) as caught:
        config.resolve_weights()
    assert str(caught.value) == (
        f"model.weights = 'net.h5': there is no file {tmp_path / 'net.h5'}; name a .h5 or .safetensors file, "
        "or leave the key out for the weights of 'mobilenet-v2'."
    )
    (tmp_path / "net.h5").write_bytes(b"")
    assert config.resolve_weights() == str(tmp_path / "net.h5")
    assert "`weights` goes with images, but the rows are texts" in refusal(
        tmp_path, MINIMAL, "model.weights=net.h5"
    )


def defaults_of(function) -> dict[str, object]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_defaults_are_those_of_the_functions_behind_the_keys():
    import tfapp
    from tfapp.data.shards.streamed import load_sharded_data
    from tfapp.evaluation import AttackSettings
    from tfapp.training import Board, SourceTask

    readers = (tfapp.load_text_data, tfapp.load_image_data, load_sharded_data)
    builders = (tfapp.build_text_classifier, tfapp.build_image_classifier, tfapp.load_backbone)
    pairs = [
        (DataSection, readers, {"dataset", "train", "kind", "max_length", "long_texts", "augment"}),
        (SourceSection, (*readers, SourceTask), {"dataset", "train", "kind"}),
        (ModelSection, builders, {"backbone"}),
        (TrainSection, (tfapp.train,), set()),
        (DistillSection, (tfapp.distill,), {"batch_size", "patience"}),
        (HardwareSection, (tfapp.make_strategy,), set()),
        (BoardSection, (Board,), set()),
        (EvaluateSection, (tfapp.evaluate,), {"calibrate", "ledger", "attack"}),
        (AttackSection, (tfapp.evaluate_robustness, AttackSettings), set()),
        (ExportSection, (tfapp.export,), set()),
        (VerifySection, (tfapp.Budget,), set()),
    ]
    for section, functions, elsewhere in pairs:
        for key, field in section.model_fields.items():
            found = [defaults[key] for function in functions if key in (defaults := defaults_of(function))]
            assert bool(found) == (key not in elsewhere), f"{section.__name__}.{key}"
            assert all(field.default == default for default in found), f"{section.__name__}.{key}"
    assert set(PhaseSection.model_fields) == set(inspect.signature(tfapp.Phase).parameters)


def test_the_formats_are_those_that_there_are(tmp_path):
    from typing import get_args

    from tfapp.data.readers import READERS
    from tfapp.data.readers.images import ImageFormat

    formats = get_args(ImageFormat)
    assert formats == (*READERS, "tfrecord", "archive")
    for format in formats:
        assert load_config(write(tmp_path, MINIMAL), [f"data.format={format}"]).data.format == format
    assert refusal(tmp_path, MINIMAL, "data.format=?").count("'") == 2 * (len(formats) + 1)


def test_a_budget_below_a_grey_level_is_refused_before_anything_is_trained(tmp_path):
    images = MINIMAL.replace('"reviews.csv"', '"photos"\nkind = "image"')
    assert "less than one grey level" in refusal(tmp_path, images, "evaluate.attack.epsilon=0.003")
    config = load_config(write(tmp_path, images), [f"evaluate.attack.epsilon={1 / 255}"])
    assert config.evaluate.attack.epsilon == 1 / 255
    assert load_config(write(tmp_path, MINIMAL), ["evaluate.attack.epsilon=0.003"])


def test_the_attacks_are_those_that_there_are(tmp_path):
    from tfapp.attacks.words import WORD_ATTACKS as ATTACKS_ON_STRINGS
    from tfapp.config_sections import WORD_ATTACKS
    from tfapp.evaluation.robustness.on_pixels import pixel_attacks
    from tfapp.evaluation.robustness.settings import WORD_ATTACKS as EVALUATED

    assert WORD_ATTACKS == EVALUATED
    assert set(WORD_ATTACKS) == set(ATTACKS_ON_STRINGS)
    images = MINIMAL.replace('"reviews.csv"', '"photos"\nkind = "image"')
    for text, names in ((images, pixel_attacks()), (MINIMAL, ("standard", *WORD_ATTACKS))):
        for name in names:
            config = load_config(write(tmp_path, text), [f"evaluate.attack.attack={name}"])
            assert config.evaluate.attack.attack == name
    choices = refusal(tmp_path, images, 'evaluate.attack.attack="?"')
    assert choices.count("'") == 2 * (len(pixel_attacks()) + len(WORD_ATTACKS) + 1)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluate.attack.attack=pgd", "pgd does not go with texts"),
        ("evaluate.attack.norm=linf", "`evaluate.attack.norm` goes with images"),
        ("evaluate.attack.epsilon=0", "evaluate.attack.epsilon = 0: must be greater than 0"),
        ("verify.min_robust_accuracy=0.5", "`verify.min_robust_accuracy` is of no effect without"),
        ("verify.max_robust_accuracy_drop=0.02", "`verify.max_robust_accuracy_drop` is of no effect without"),
        ("export.black_box_queries=200", "`export.black_box_queries` is of no effect without"),
        ("export.black_box_examples=9", "`export.black_box_examples` is of no effect without"),
        ("verify.max_robust_accuracy_drop=2", "must be less than or equal to 1"),
    ],
)
def test_an_attack_that_cannot_be_is_refused(tmp_path, override, said):
    assert said in refusal(tmp_path, MINIMAL, override)


def test_keys_of_an_attack_are_taken_beside_it(tmp_path):
    overrides = [
        "evaluate.attack.examples=9",
        "evaluate.attack.max_queries=50",
        "evaluate.attack.max_seconds=2.5",
        "verify.max_robust_accuracy_drop=0.1",
        "export.black_box_queries=0",
    ]
    config = load_config(write(tmp_path, MINIMAL), overrides)
    assert config.verify.max_robust_accuracy_drop == 0.1
    assert config.export.black_box_queries == 0
    assert config.evaluate.attack.max_seconds == 2.5


@pytest.mark.parametrize(
    ("objective", "overrides", "said"),
    [
        ("fgm", ["harden.norm=l2"], "`harden.norm` goes with images: .* norm of their own embeddings"),
        (
            "fgm",
            ["harden.batch_norm=clean"],
            "`harden.batch_norm` goes with images: .* no batch normalisation",
        ),
        ("word_augmented", [], r"`edits` or `corruptions` in `\[data.augment\]`"),
        ("word_augmented", ["data.augment=none"], "changed texts: say how, with"),
        ("word_augmented", ["data.augment.severity=2"], "changed texts: say how, with"),
        ("word_augmented", ["data.augment.edits=[]"], "changed texts: say how, with"),
    ],
)
def test_hardening_of_texts_that_cannot_be_is_refused(tmp_path, objective, overrides, said):
    text = MINIMAL + f"[harden]\nobjective = '{objective}'\n"
    assert re.search(said, refusal(tmp_path, text, *overrides))


@pytest.mark.parametrize("changes", ["edits=['swap']", "corruptions=['typos']"])
def test_word_augmented_takes_edits_or_corruptions(tmp_path, changes):
    text = MINIMAL + "[harden]\nobjective = 'word_augmented'\n"
    assert (
        load_config(write(tmp_path, text), [f"data.augment.{changes}"]).harden.objective == "word_augmented"
    )


def test_images_are_hardened_by_objectives_of_images(tmp_path):
    overrides = ["harden.objective=adversarial", "harden.norm=l2", "harden.batch_norm=adversarial"]
    assert load_config(write(tmp_path, IMAGES), overrides).harden.norm == "l2"
    message = refusal(tmp_path, IMAGES, "harden.objective=word_augmented")
    assert "the rows are images; 'adversarial' and 'trades' are for images" in message
    assert "edits" not in message


def test_the_variants_are_those_that_there_are(tmp_path):
    from tfapp.release.artifacts import VARIANTS

    config = load_config(write(tmp_path, MINIMAL), [f"export.variants={list(VARIANTS)}"])
    assert config.export.variants == list(VARIANTS)
    choices = refusal(tmp_path, MINIMAL, 'export.variants=["?"]')
    assert choices.count("'") == 2 * (len(VARIANTS) + 1)


def test_a_source_is_read_and_checked(tmp_path):
    source = "[transfer.source]\ntrain = 'other.csv'\nalpha = [0.1, 1]\n[evaluate]\nledger = true\n"
    config = load_config(write(tmp_path, MINIMAL + source))
    assert config.transfer.source.alpha == [0.1, 1.0]
    assert config.transfer.source.source_share == 1.0
    assert config.evaluate.ledger
    text = MINIMAL + source
    assert "transfer.source.alhpa: unknown key" in refusal(tmp_path, text.replace("alpha", "alhpa"))
    assert "greater than or equal to 0" in refusal(tmp_path, text.replace("0.1", "-0.1"))
    assert "must not be empty" in refusal(tmp_path, text.replace("[0.1, 1]", "[]"))
    assert "`group` goes with images" in refusal(tmp_path, text, "transfer.source.group=tile")
    assert "give either `dataset`" in refusal(tmp_path, text.replace("train = 'other.csv'", ""))
    message = refusal(tmp_path, text, "transfer.source.kind=image")
    assert "`transfer.source` holds images, but `data` holds texts" in message


IMAGES = "name = 'photos'\n[data]\nkind = 'image'\ntrain = 'photos'\n"


def test_what_is_done_to_texts_and_to_images_is_checked_by_kind(tmp_path):
    from tfapp.workflow_calls import train_options

    texts = MINIMAL + "[data.augment]\nedits = ['swap']\ncorruptions = ['typos']\nseverity = 2\n"
    assert train_options(load_config(write(tmp_path, texts)))["augment"] == {
        "edits": ["swap"],
        "corruptions": ["typos"],
        "severity": 2,
    }
    assert "`rotation` goes with images" in refusal(tmp_path, texts, "data.augment.rotation=3.0")
    assert "'fog' is not for texts" in refusal(tmp_path, texts, "data.augment.corruptions=['fog']")
    assert "did you mean 'swap'" in refusal(tmp_path, texts, "data.augment.edits=['swop']")
    assert "is for images" in refusal(tmp_path, MINIMAL, "data.augment=light")
    assert load_config(write(tmp_path, MINIMAL), ["data.augment=none"]).data.augment == "none"
    images = IMAGES + "[data.augment]\npreset = 'light'\n[data.augment.adversarial]\nattack = 'pgd'\n"
    options = train_options(load_config(write(tmp_path, images)))
    assert options["augment"] == {"preset": "light", "adversarial": {"attack": "pgd"}}
    assert "`edits` goes with texts" in refusal(tmp_path, images, "data.augment.edits=['swap']")
    assert "`adversarial` goes with images" in refusal(
        tmp_path, MINIMAL + "[data.augment.adversarial]\nattack = 'pgd'\n"
    )
    frozen = ["data.augment.adversarial.refresh=never", "data.augment.adversarial.model=other.keras"]
    with pytest.raises(ConfigError, match="there is no"):
        train_options(load_config(write(tmp_path, images), frozen))
    (tmp_path / "other.keras").touch()
    named = train_options(load_config(write(tmp_path, images), frozen))["augment"]["adversarial"]
    assert named["model"] == str(tmp_path / "other.keras")


def test_names_and_settings_of_augmentation_are_those_that_there_are():
    from dataclasses import fields
    from typing import get_args

    from tfapp import config_values
    from tfapp.config_rows import AdversarialSection, AugmentSection
    from tfapp.data.augment import Augmentation, TextAugmentation
    from tfapp.data.corruptions import IMAGE_CORRUPTIONS, TEXT_CORRUPTIONS
    from tfapp.data.edits import TEXT_EDITS
    from tfapp.training.adversarial import AdversarialAugmentation

    assert get_args(config_values.ImageCorruptionName) == tuple(IMAGE_CORRUPTIONS)
    assert get_args(config_values.TextCorruptionName) == tuple(TEXT_CORRUPTIONS)
    assert get_args(config_values.EditName) == tuple(TEXT_EDITS)
    settings = {field.name for kind in (Augmentation, TextAugmentation) for field in fields(kind)}
    assert set(AugmentSection.model_fields) == settings | {"preset", "adversarial"}
    assert set(AdversarialSection.model_fields) == {field.name for field in fields(AdversarialAugmentation)}


def test_every_key_of_harden_is_a_setting_of_an_objective():
    from typing import get_args

    from tfapp.config_sections import HardenSection
    from tfapp.objectives import OBJECTIVES

    named = get_args(HardenSection.model_fields["objective"].annotation)
    assert set(named) == set(OBJECTIVES) - {"standard", "joint", "distilled"}
    known = {key for name in named for key in inspect.signature(OBJECTIVES[name]).parameters}
    own = {"objective", "phases", "keep_best", "probe"}
    assert set(HardenSection.model_fields) - own == known


def test_the_attacks_to_train_with_are_those_that_there_are(tmp_path):
    from tfapp.attacks import ATTACKS

    for name in ATTACKS:
        text = MINIMAL if name.startswith("embedding_") else IMAGES
        overrides = ["harden.objective=adversarial", f"harden.attack={name}"]
        assert load_config(write(tmp_path, text), overrides).harden.attack == name
    choices = refusal(tmp_path, IMAGES, "harden.objective=adversarial", 'harden.attack="?"')
    assert choices.count("'") == 2 * (len(ATTACKS) + 1)


@pytest.mark.parametrize(
    ("text", "phase", "attack", "said"),
    [
        ("MINIMAL", "all", "apgd", "'apgd' is for pixels, and these phases perturb embeddings"),
        ("IMAGES", "all", "embedding_pgd", "is for embeddings, and these phases perturb pixels"),
        ("IMAGES", "head", "pgd", "is for pixels, and these phases perturb embeddings"),
        ("IMAGES", "head", "embedding_fgm", None),
    ],
)
def test_an_attack_to_train_with_goes_with_what_is_perturbed(tmp_path, text, phase, attack, said):
    phases = f"harden.phases=[{{ train = '{phase}', epochs = 1, learning_rate = 0.1 }}]"
    overrides = ["harden.objective=adversarial", phases, f"harden.attack={attack}"]
    text = {"MINIMAL": MINIMAL, "IMAGES": IMAGES}[text]
    if said is None:
        assert load_config(write(tmp_path, text), overrides).harden.attack == attack
    else:
        assert said in refusal(tmp_path, text, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["harden.objective=trades", "harden.epsilon=8"],
        ["harden.objective=adversarial", "harden.step_size=2.0"],
        ["evaluate.attack.epsilon=8.0"],
        ["data.augment.adversarial.epsilon=8.0"],
    ],
)
def test_a_budget_beyond_the_range_of_pixels_is_refused(tmp_path, overrides):
    assert "epsilon is a fraction of the pixel range: 8/255 = 0.0314" in refusal(tmp_path, IMAGES, *overrides)
    key = ".".join(overrides[-1].partition("=")[0].split(".")[:-1])
    assert load_config(write(tmp_path, IMAGES), [*overrides, f"{key}.norm=l2"])


@pytest.mark.parametrize(
    ("section", "watched"),
    [
        ("objective = 'adversarial'", True),
        ("objective = 'free'", True),
        ("objective = 'adversarial'\nattack = 'fgsm'", True),
        ("objective = 'adversarial'\nattack = 'apgd'", False),
        ("objective = 'adversarial'\nnum_steps = 2", False),
        ("objective = 'adversarial'\nprobe = false", False),
        ("objective = 'trades'", False),
        ("objective = 'adversarial'\nphases = [{train = 'head', epochs = 1, learning_rate = 0.1}]", False),
        ("objective = 'trades'\n[data.augment.adversarial]\nepsilon = 0.02", True),
        ("objective = 'trades'\nprobe = false\n[data.augment.adversarial]\nepsilon = 0.02", False),
        ("objective = 'trades'\n[data.augment.adversarial]\nattack = 'pgd'", False),
        ("objective = 'trades'\n[data.augment.adversarial]\nrefresh = 'never'", False),
    ],
)
def test_single_steps_on_pixels_are_watched(tmp_path, monkeypatch, section, watched):
    from types import SimpleNamespace

    from tfapp.workflow_calls import overfitting_probes

    monkeypatch.setattr("tfapp.training.CatastrophicOverfitting", lambda split, **options: options)
    config = load_config(write(tmp_path, IMAGES + "[harden]\n" + section + "\n"))
    data = SimpleNamespace(validation=[1])
    found = overfitting_probes(config, config.harden, data)
    assert bool(found) == watched
    attacked = "epsilon" in section
    assert bool(overfitting_probes(config, None, data)) == attacked
    if watched and attacked:
        assert found == [{"seed": 0, "epsilon": 0.02}]
