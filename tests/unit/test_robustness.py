"""Robust accuracy on models whose answers under attack are known in closed form, healthy and diseased."""

import json
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.attacks import ATTACKS, loss_in_use
from tfapp.data.drawing import draw_rows
from tfapp.data.grey_levels import in_grey_levels
from tfapp.data.image import ImageSplit, load_image_data
from tfapp.data.image_store import ArrayImages
from tfapp.errors import ConfigError, DataError
from tfapp.evaluation import alarms, evaluate_corruptions, robustness_curve
from tfapp.evaluation.robustness import Robustness, evaluate_robustness
from tfapp.evaluation.robustness.intervals import wilson_interval
from tfapp.evaluation.robustness.pixel_budget import perturbation_norms
from tfapp.evaluation.robustness.settings import AttackSettings, epsilon_text
from tfapp.models import build_image_classifier

SIZE, ROWS = 8, 60
CLASSES = ("lying", "standing")
STRIPES = np.where(np.arange(SIZE) % 2, 1.0, -1.0)
TEMPLATES = np.stack(
    [np.tile(STRIPES[:, None, None], (1, SIZE, 3)), np.tile(STRIPES[None, :, None], (SIZE, 1, 3))]
)
AMPLITUDES = np.arange(ROWS) // 2 + 1
LABELS = np.arange(ROWS) % 2


def linear_classifier(*, scale=1.0, disease=None):
    """Answers with the correlation of an image with lying and with standing stripes.

    A perturbation of e grey levels changes the difference of the two correlations by e at most, so an image
    is fooled exactly when e is more than its amplitude.
    """
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1.0, -128.0)(pixels)
    if disease is not None:
        hidden = disease()(hidden)
    model = build_image_classifier(
        keras.Model(pixels, keras.layers.Flatten()(hidden)), classes=CLASSES, image_size=SIZE
    )
    kernel = np.stack([TEMPLATES[0].ravel(), TEMPLATES[1].ravel()], axis=1)
    difference = np.abs(kernel[:, 0] - kernel[:, 1]).sum()
    model.layers[-1].set_weights([kernel * scale * TEMPLATES[0].size / difference / 96, np.zeros(2)])
    return model


@keras.saving.register_keras_serializable("tests")
class Rounding(keras.layers.Layer):
    """Steps of 4 grey levels, which have no gradient."""

    def call(self, inputs):
        return 4.0 * tf.round(inputs / 4.0)


@keras.saving.register_keras_serializable("tests")
class Shattering(keras.layers.Layer):
    """Ripples of half a grey level, whose slope hides that of the image."""

    def call(self, inputs):
        return inputs + 0.5 * tf.sin(40.0 * inputs)


@keras.saving.register_keras_serializable("tests")
class Brittle(keras.layers.Layer):
    """Turns the image over with every small change of its brightness."""

    def call(self, inputs):
        return inputs * tf.cos(500.0 * tf.reduce_sum(inputs, axis=(1, 2, 3), keepdims=True))


@pytest.fixture(scope="module")
def split():
    images = 128 + AMPLITUDES[:, None, None, None] * TEMPLATES[LABELS]
    store = ArrayImages(images.astype(np.uint8), np.arange(ROWS))
    return ImageSplit("test", store, LABELS.astype(np.int32), CLASSES, tuple("0" * 64 for _ in range(ROWS)))


@pytest.fixture(scope="module")
def healthy():
    return linear_classifier(scale=0.2)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd"])
def test_the_robust_accuracy_of_a_linear_model_is_that_of_the_closed_form(healthy, split, attack):
    result = evaluate_robustness(healthy, split, attack=attack, epsilon=10 / 255)
    assert result.clean_accuracy == 1.0
    # At exactly 10 levels the two correlations are equal, up to rounding.
    survive, tied = np.mean(AMPLITUDES > 10), np.mean(AMPLITUDES == 10)
    assert survive <= result.robust_accuracy <= survive + tied
    assert result.alarms == ()
    assert len(result.checked) == 4
    assert [example.predicted for example in result.worst] != [example.label for example in result.worst]
    assert all(AMPLITUDES[example.row] <= 10 for example in result.worst)


def test_the_ensemble_finds_what_its_first_member_finds_and_says_what_each_found(healthy, split):
    result = evaluate_robustness(
        healthy, split, epsilon=10 / 255, num_steps=5, options={"num_queries": 20}, examples=40
    )
    assert [figures.name for figures in result.per_attack] == ["apgd", "apgd_t", "fab", "square"]
    rows = [figures.attacked for figures in result.per_attack]
    left = [figures.attacked - figures.fooled for figures in result.per_attack]
    assert rows == [40, *left[:-1]]
    assert result.per_attack[-1].robust_accuracy == result.robust_accuracy == left[-1] / 40
    assert "steps 5, restarts 1, 40 examples of test, seed 0" in result.settings_text


def test_the_loss_that_takes_the_place_of_dlr_is_stated(healthy, split):
    options = {"epsilon": 10 / 255, "num_steps": 2, "examples": 8, "alarms": False}
    targeted = evaluate_robustness(healthy, split, attack="apgd_t", **options)
    assert targeted.per_attack[0].settings["loss"] == "cross_entropy"
    direct = evaluate_robustness(healthy, split, attack="apgd", options={"loss": "dlr"}, **options)
    assert "loss cross_entropy" in str(direct)
    assert loss_in_use(partial(ATTACKS["apgd_t"], num_steps=3), {}, 4) == "dlr_targeted"
    assert loss_in_use(ATTACKS["apgd"], {"loss": "dlr"}, 3) == "dlr"
    assert loss_in_use(ATTACKS["pgd"], {"loss": "dlr"}, 2) is None


def test_a_budget_beyond_the_range_of_pixels_is_refused(healthy, split):
    with pytest.raises(ConfigError, match=r"epsilon = 8: .* pixel range: 8/255 = 0\.0314 for 8 grey levels"):
        evaluate_robustness(healthy, split, attack="fgsm", epsilon=8)
    assert AttackSettings(attack="pgd", epsilon=8.0, norm="l2").epsilon_of("pixels") == 8.0


def test_a_curve_ends_at_the_range_of_pixels(healthy, split):
    curve = robustness_curve(healthy, split, epsilon=0.4, attack="fgsm", examples=8)
    assert [point.epsilon for point in curve.points] == [0.1, 0.2, 0.4, 0.8, 1.0]


def test_alarms_of_the_training_stand_with_the_others_and_are_kept(healthy, split, tmp_path):
    result = evaluate_robustness(healthy, split, attack="fgsm", epsilon=10 / 255, examples=8)
    alarm = alarms.catastrophic_overfitting(attack="fgsm", found="phase 1, epoch 2: it fell")
    assert "catastrophic_overfitting" in str(result.joined_by([], checked=alarms.OVERFITTED))
    joined = result.joined_by([alarm], checked=alarms.OVERFITTED).joined_by(
        [alarm], checked=alarms.OVERFITTED
    )
    assert joined.alarms == (alarm,)
    assert joined.checked == (*result.checked, "catastrophic_overfitting")
    assert "single step and nothing else in phase 1, epoch 2: it fell" in str(joined)
    loaded = Robustness.load(joined.save(tmp_path))
    assert loaded.alarms == (alarm,)


def test_every_setting_is_printed_with_the_figure(healthy, split):
    result = evaluate_robustness(
        healthy, split, attack="pgd", epsilon=4 / 255, num_steps=3, num_restarts=2, examples=20, seed=7
    )
    text = str(result)
    settings = "attack pgd, norm linf, epsilon 4/255, steps 3, restarts 2, 20 examples of test, seed 7"
    assert settings in text
    low, high = wilson_interval(int(result.robust_accuracy * 20 + 0.5), 20)
    assert f"robust accuracy {result.robust_accuracy:.4f} [{low:.4f}, {high:.4f}]" in text
    assert "loss cross_entropy" in text
    content = json.loads(json.dumps(result.to_dict()))
    assert content["robust_accuracy"] == result.robust_accuracy
    assert (content["num_steps"], content["num_restarts"]) == (3, 2)
    assert result.queries == result.per_attack[0].queries >= 20 * 2 * 3


def test_the_same_seed_gives_the_same_rows(healthy, split):
    one, other = (
        evaluate_robustness(healthy, split, attack="pgd", num_steps=2, examples=20, alarms=False, seed=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.adversarial, other.adversarial)


def test_l2_has_its_own_default_and_closed_form(healthy, split):
    result = evaluate_robustness(healthy, split, attack="pgd", norm="l2", alarms=False)
    assert (result.norm, result.epsilon) == ("l2", 0.5)
    # The difference of the templates is 0 on half of the pixels and 2 on the others: n/2 of them count.
    reach = 0.5 * 255 / np.sqrt(TEMPLATES[0].size / 2)
    near = np.abs(AMPLITUDES - reach) < 0.5
    assert abs(result.robust_accuracy - np.mean(reach < AMPLITUDES)) <= near.mean() + 1e-9


def test_rows_that_are_wrong_before_are_wrong_after(split):
    model = linear_classifier(scale=-0.2)
    result = evaluate_robustness(model, split, attack="fgsm", alarms=False)
    assert (result.clean_accuracy, result.robust_accuracy) == (0.0, 0.0)
    assert result.per_attack[0].attacked == 0
    np.testing.assert_array_equal(result.adversarial[0], split_pixels(split)[0])


def split_pixels(split):
    return split.images.pixels


def test_what_is_handed_on_are_grey_levels_within_the_budget(healthy, split):
    result = evaluate_robustness(healthy, split, attack="pgd", epsilon=8 / 255, alarms=False)
    assert result.adversarial.dtype == np.uint8
    moved = np.abs(result.adversarial.astype(int) - split_pixels(split).astype(int))
    assert moved.max() == 8
    fooled = result.predicted != LABELS
    again = evaluate_robustness(
        healthy,
        ImageSplit(
            "made",
            ArrayImages(result.adversarial, np.arange(ROWS)),
            split.labels,
            CLASSES,
            split.digests,
        ),
        attack="fgsm",
        epsilon=1e-6,
        alarms=False,
    )
    assert np.mean((again.clean_predicted != LABELS) == fooled) >= 0.95


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rounding_to_grey_levels_stays_within_the_budget(norm):
    generator = np.random.default_rng(0)
    clean = generator.integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    noise = generator.uniform(-1, 1, clean.shape)
    epsilon = 3.6 / 255 if norm == "linf" else 12 / 255
    size = np.abs(noise).max(axis=(1, 2, 3)) if norm == "linf" else np.sqrt((noise**2).sum(axis=(1, 2, 3)))
    made = np.clip(clean + noise * (epsilon * 255 / size)[:, None, None, None], 0, 255).astype(np.float32)
    rounded = in_grey_levels(made, clean, epsilon=epsilon, norm=norm)
    assert perturbation_norms(rounded.astype(np.float32), clean, norm).max() <= epsilon + 1e-9
    assert np.abs(rounded.astype(float) - made).max() < 1.0
    assert np.any(rounded != clean)


def test_rounding_keeps_most_of_a_perturbation_that_rounding_would_lengthen():
    """At this size one pixel moves by 0.3 grey levels: whole levels are 0 or 1, and their norm is larger."""
    generator = np.random.default_rng(0)
    clean = generator.integers(40, 216, (2, 224, 224, 3)).astype(np.uint8)
    noise = generator.standard_normal(clean.shape)
    lengths = np.sqrt(np.sum(noise**2, axis=(1, 2, 3), keepdims=True))
    made = (clean + 255.0 * 0.5 * noise / lengths).astype(np.float32)
    kept = perturbation_norms(in_grey_levels(made, clean, epsilon=0.5, norm="l2").astype(float), clean, "l2")
    assert kept.max() <= 0.5
    assert kept.min() >= 0.95 * 0.5


def test_results_are_kept_and_read_again(healthy, split, tmp_path):
    result = evaluate_robustness(healthy, split, attack="pgd", examples=12, num_steps=2)
    read = Robustness.load(result.save(tmp_path / "attack"))
    assert read.to_dict() == result.to_dict()
    np.testing.assert_array_equal(read.adversarial, result.adversarial)
    np.testing.assert_array_equal(read.predicted, result.predicted)
    (tmp_path / "attack" / "robustness.json").write_text("{")
    with pytest.raises(DataError, match="attack again"):
        Robustness.load(tmp_path / "attack")


def names(result):
    return {alarm.name for alarm in result.alarms}


def test_saturated_logits_have_no_gradient_and_that_is_said(split):
    result = evaluate_robustness(linear_classifier(scale=1e4), split, attack="fgsm", epsilon=30 / 255)
    assert result.robust_accuracy > 0.9
    assert "zero_gradients" in names(result)
    assert "black_box_stronger" in names(result)
    assert "ALARM zero_gradients (undermines the figure of fgsm)" in str(result)


def test_rounding_in_the_model_stops_gradients_and_not_a_black_box(split):
    model = linear_classifier(scale=0.2, disease=Rounding)
    result = evaluate_robustness(model, split, attack="pgd", epsilon=20 / 255)
    assert {"zero_gradients", "black_box_stronger", "does_not_fall_to_zero"} <= names(result)
    honest = evaluate_robustness(
        model, split, attack="square", epsilon=20 / 255, options={"num_queries": 500}
    )
    assert honest.robust_accuracy < result.robust_accuracy - 0.2
    assert honest.checked == ()


def test_shattered_gradients_are_found_though_none_is_zero(split):
    model = linear_classifier(scale=0.2, disease=Shattering)
    result = evaluate_robustness(model, split, attack="fgsm", epsilon=15 / 255)
    assert "zero_gradients" not in names(result)
    assert "black_box_stronger" in names(result)


def test_a_model_that_any_direction_fools_is_found_by_noise(split):
    result = evaluate_robustness(
        linear_classifier(scale=0.2, disease=Brittle), split, attack="fgsm", epsilon=2 / 255
    )
    assert "noise_as_strong" in names(result)


def test_the_thresholds_of_alarms():
    def black_box(fooled, probed=50, survivors=100, examples=500):
        return alarms.black_box_stronger(
            attack="pgd",
            black_box="square",
            fooled=fooled,
            probed=probed,
            survivors=survivors,
            examples=examples,
        )

    assert black_box(2) is None  # 2 / 50 of 100 survivors are 4 of 500: 0.8 %
    assert black_box(3) is not None
    assert black_box(1, probed=1, survivors=1, examples=10) is None
    assert alarms.does_not_fall_to_zero(attack="pgd", epsilon="0.5", survivors=3, probed=64) is None
    assert alarms.does_not_fall_to_zero(attack="pgd", epsilon="0.5", survivors=4, probed=64)
    assert alarms.zero_gradients(attack="pgd", zero_rows=0, probed=64) is None
    assert alarms.zero_gradients(attack="pgd", zero_rows=1, probed=64)
    noise = {"attack": "pgd", "probed": 64}
    assert alarms.noise_as_strong(fooled_by_noise=8, fooled_by_attack=10, **noise) is None
    assert alarms.noise_as_strong(fooled_by_noise=9, fooled_by_attack=10, **noise)
    assert alarms.noise_as_strong(fooled_by_noise=1, fooled_by_attack=1, **noise) is None
    falling = [(0.0, 1.0), (0.01, 0.5), (0.02, 0.505)]
    assert alarms.rises_with_epsilon(attack="pgd", points=falling) is None
    assert alarms.rises_with_epsilon(attack="pgd", points=[*falling, (0.03, 0.52)])


def test_a_curve_falls_with_the_closed_form_and_starts_at_multiples(healthy, split):
    curve = robustness_curve(healthy, split, epsilon=8 / 255, num_steps=5, examples=40)
    epsilons = [round(point.epsilon * 255, 6) for point in curve.points]
    assert epsilons == [2, 4, 8, 16, 32]
    amplitudes = AMPLITUDES[draw_rows(split, 40)[2]]
    for point, epsilon in zip(curve.points, epsilons, strict=True):
        survive, tied = np.mean(amplitudes > epsilon), np.mean(amplitudes == epsilon)
        assert survive <= point.robust_accuracy <= survive + tied
    assert curve.alarms == ()
    text = str(curve)
    assert "attack pgd, norm linf, epsilon as stated, steps 5, restarts 1, 40 examples" in text
    assert "32/255" in text
    assert len(curve.to_dict()["points"]) == 5
    with pytest.raises(ConfigError, match="two or more different"):
        robustness_curve(healthy, split, epsilons=[0.1, 0.1])


def test_corruptions_are_measured_at_each_severity():
    images = np.full((4, 32, 32, 3), 100, np.uint8)
    images[2:] += 60
    pixels = keras.Input((32, 32, 3), name="pixels")
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    model = build_image_classifier(network, classes=("dark", "light"), image_size=32)
    model.layers[-1].set_weights([np.array([[-1.0, 1.0]] * 3), np.array([390.0, -390.0])])
    rows = ArrayImages(images, np.arange(4))
    split = ImageSplit("test", rows, np.array([0, 0, 1, 1], np.int32), model.classes, ("0" * 64,) * 4)
    found = evaluate_corruptions(model, split, corruptions=["brightness", "contrast"], severities=[1, 5])
    assert found.clean_accuracy == 1.0
    # Brightness lifts dark images over the border at some severity; contrast leaves their means.
    assert found.accuracy["brightness"][1] == 0.5
    assert found.accuracy["contrast"] == (1.0, 1.0)
    assert "severity 5" in str(found)
    content = found.to_dict()
    assert content["mean"] == pytest.approx(found.mean)
    assert content["clean_interval95"] == list(wilson_interval(4, 4))
    assert content["intervals95"]["brightness"][1] == list(wilson_interval(2, 4))
    assert "0.5000 [0.150, 0.850]" in str(found)
    with pytest.raises(ConfigError, match="unknown corruption 'fogg'; did you mean 'fog'"):
        evaluate_corruptions(model, split, corruptions=["fogg"])


def test_an_attack_beyond_its_budget_is_refused(healthy, split):
    def cheat(model_fn, images, labels, *, epsilon, norm, bounds, seed):
        return tf.clip_by_value(images + 2 * epsilon * 255, *bounds)

    with pytest.raises(ConfigError, match="'cheat' goes beyond its budget"):
        evaluate_robustness(healthy, split, attack=cheat, examples=8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attack": "pdg"}, "unknown attack on images 'pdg'; did you mean 'pgd'"),
        ({"attack": "embedding_pgd"}, "unknown attack on images"),
        ({"norm": "l1"}, "norm = 'l1' is unknown"),
        ({"epsilon": 0.0}, "epsilon = 0.0: it must be a positive number"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"attack": "fgsm", "num_steps": 3}, "num_steps = 3: the attack 'fgsm' has no such setting"),
        ({"attack": "pgd", "options": {"stepsize": 1}}, "no setting 'stepsize'; did you mean 'step_size'"),
        ({"options": {"epsilon": 0.1}}, "'epsilon' is set by .* on pixels; give epsilon instead"),
        ({"attack": "pgd", "options": {"norm": "l2"}}, "'norm' is set by .*; give norm instead"),
        ({"options": {"bounds": (0, 1)}}, "'bounds' is set by .*; leave it out"),
        ({"attack": "square", "options": {"batch_size": 3}}, "'batch_size' is set by .*; give batch_size"),
        ({"num_restarts": 2}, "num_restarts = 2: the attack 'standard' has no such setting"),
        ({"examples": 0}, "examples = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(healthy, split, options, said):
    with pytest.raises(ConfigError, match=said):
        evaluate_robustness(healthy, split, **options)


def test_a_split_of_other_classes_is_refused(healthy, split):
    data = load_image_data(
        (split_pixels(split), np.array(["a", "b"])[LABELS]), near_duplicates="keep", seed=0
    )
    with pytest.raises(DataError, match="has the classes"):
        evaluate_robustness(healthy, data.test, attack="fgsm")


def test_intervals_have_a_width_at_the_ends():
    low, high = wilson_interval(0, 500)
    assert low == 0.0
    assert high == pytest.approx(1.959964**2 / (500 + 1.959964**2), rel=1e-5)  # Wilson's upper end at 0
    assert wilson_interval(500, 500) == (pytest.approx(1 - high), 1.0)


def test_budgets_are_worded_in_grey_levels_where_they_are():
    assert epsilon_text(8 / 255, "linf") == "8/255"
    assert epsilon_text(0.5 / 255, "linf") == "0.5/255"
    assert epsilon_text(0.03, "linf") == "0.03"
    assert epsilon_text(0.2, "words") == "0.2"
    assert AttackSettings().epsilon_of("pixels") == 8 / 255
