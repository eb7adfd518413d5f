from dataclasses import replace

import numpy as np
import pytest

from tfapp.errors import ConfigError
from tfapp.release.answers import Answers, Reference, find_flaw, log_scale
from tfapp.release.gate import Budget, check_label_file, judge

CLASSES = ("cat", "dog", "owl")


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(200, 3)) * 3


@pytest.fixture
def reference(logits):
    return Reference(softmax(logits / 2.0), logits.argmax(axis=1), CLASSES, temperature=2.0)


def flipped(reference, rows):
    """The reference's probabilities, with the best and the worst class exchanged in the first rows."""
    probabilities = reference.probabilities.copy()
    for row in range(rows):
        best, worst = probabilities[row].argmax(), probabilities[row].argmin()
        probabilities[row, [best, worst]] = probabilities[row, [worst, best]]
    return probabilities


def test_the_same_answers_pass_with_their_measures(reference):
    judged = judge("dynamic", Answers(probabilities=reference.probabilities), reference, Budget())
    assert judged.reasons == ()
    assert (judged.examples, judged.agreement, judged.max_abs_difference) == (200, 1.0, 0.0)
    assert (judged.accuracy, judged.accuracy_drop) == (1.0, 0.0)


def test_agreement_and_accuracy_are_shares_of_rows(reference):
    answers = Answers(probabilities=flipped(reference, 5))
    budget = Budget(min_agreement=0.97, max_accuracy_drop=0.03)
    judged = judge("dynamic", answers, reference, budget)
    assert judged.agreement == pytest.approx(0.975)
    assert judged.accuracy_drop == pytest.approx(0.025)
    assert judged.reasons == ()


def test_each_broken_budget_has_its_reason(reference):
    answers = Answers(probabilities=flipped(reference, 5))
    reasons = judge("dynamic", answers, reference, Budget(max_abs_difference=0.1)).reasons
    assert len(reasons) == 3
    assert "97.50% of 200 rows" in reasons[0]
    assert "min_agreement" in reasons[0]
    assert "max_abs_difference" in reasons[1]
    assert "max_accuracy_drop" in reasons[2]


def test_exact_variants_may_not_differ_though_the_classes_agree(reference, logits):
    answers = Answers(probabilities=softmax(logits / 2.0 * 0.93))
    assert judge("dynamic", answers, reference, Budget()).reasons == ()
    for variant in ("saved_model", "keras", "float32", "onnx"):
        (reason,) = judge(variant, answers, reference, Budget()).reasons
        assert "max_exact_difference" in reason


@pytest.mark.parametrize("variant", ["float16", "dynamic", "text"])
@pytest.mark.parametrize("factor", [0.25, 0.5, 0.8, 1.25, 2.0])
def test_another_temperature_is_found_in_quantised_variants(reference, logits, variant, factor):
    answers = Answers(probabilities=softmax(logits / (2.0 * factor)).astype(np.float32))
    (reason,) = judge(variant, answers, reference, Budget()).reasons
    assert f"its temperature is {factor:.2f} times the model's" in reason


def in_steps(probabilities):
    """Probabilities as uint8 gives them."""
    steps = np.round(probabilities * 256).clip(0, 255) / 256
    return Answers(probabilities=steps, step=1 / 256, inputs={"pixels": ("uint8", 1.0, 0.0)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("uint8", 1.0, 0.0), None),
        (("uint8", 1.00000001, 0.0), None),
        (("uint8", 0.996, 0.0), "pixels as uint8 with scale 0.996 and zero point 0 instead"),
        (("uint8", 1.0, 3.0), "scale 1 and zero point 3"),
        (("int8", 1.0, -128.0), "pixels as int8"),
        (("float32", 0.0, 0.0), "pixels as float32"),
    ],
)
def test_an_integer_file_takes_grey_levels(reference, given, said):
    answers = replace(in_steps(reference.probabilities), inputs={"pixels": given})
    reasons = judge("int8", answers, reference, Budget()).reasons
    assert len(reasons) == (said is not None)
    assert said is None or said in reasons[0]
    assert judge("float32", answers, reference, Budget()).reasons == ()


def test_an_integer_file_that_does_not_say_what_it_takes_is_refused(reference):
    answers = replace(in_steps(reference.probabilities), inputs={})
    (reason,) = judge("int8", answers, reference, Budget()).reasons
    assert "does not say what its inputs are" in reason


def test_the_rows_that_tell_the_scale_are_counted(logits):
    sure = np.where(np.arange(200)[:, None] < 150, logits * 100, logits / 3)
    reference = Reference(softmax(sure), None, CLASSES, temperature=1.0)
    judged = judge("int8", in_steps(reference.probabilities), reference, Budget())
    assert judged.scale == pytest.approx(1.0, abs=0.02)
    assert 40 <= judged.scale_rows <= 60
    (reason,) = judge("int8", in_steps(softmax(sure / 2)), reference, Budget(min_agreement=0)).reasons
    assert "its temperature is" in reason


def test_a_scale_that_no_row_tells_is_none_and_not_right(logits):
    reference = Reference(softmax(logits * 1000), None, CLASSES, temperature=1.0)
    judged = judge("int8", in_steps(softmax(logits * 100)), reference, Budget(min_agreement=0))
    assert (judged.scale, judged.scale_rows, judged.reasons) == (None, 0, ())


@pytest.mark.parametrize("num_classes", [3, 300, 512, 1000])
def test_every_class_may_be_off_by_half_an_integer(num_classes):
    flat = Reference(np.full((4, num_classes), 1 / num_classes), None, ("a",) * num_classes, 1.0)
    assert find_flaw(in_steps(flat.probabilities), flat) is None
    beyond = flat.probabilities + 0.5 / 256 + 0.03 / num_classes
    assert "add up to 1" in find_flaw(Answers(probabilities=beyond, step=1 / 256), flat)


@pytest.mark.parametrize("sharpness", [1.0, 30.0, 1000.0])
def test_the_scale_is_found_however_sure_the_model_is(logits, sharpness):
    expected = softmax(logits * sharpness / 10)
    assert log_scale(expected, expected) == pytest.approx(1.0)
    assert log_scale(softmax(logits * sharpness / 5), expected) > 1.5
    assert log_scale(softmax(logits * sharpness / 20), expected) < 0.7


def test_noise_of_rounded_weights_does_not_change_the_scale(reference, logits):
    noisy = logits + np.random.default_rng(1).normal(size=logits.shape) * 0.3
    assert log_scale(softmax(noisy / 2.0), reference.probabilities) == pytest.approx(1.0, abs=0.03)


def test_a_model_that_answers_the_same_to_everything_has_no_scale():
    flat = np.full((20, 3), 1 / 3)
    assert log_scale(flat, flat) is None
    reference = Reference(flat, None, CLASSES, temperature=1.0)
    assert (
        judge("dynamic", Answers(probabilities=flat + [[1e-5, -1e-5, 0]]), reference, Budget(0.0)).reasons
        == ()
    )


def test_a_loss_of_exactly_the_budget_is_within_it():
    labels = np.zeros(100, int)
    right, wrong = np.array([0.6, 0.4]), np.array([0.4, 0.6])

    def answers(right_rows):
        return np.where(np.arange(100)[:, None] < right_rows, right, wrong)

    reference = Reference(answers(98), labels, ("a", "b"), temperature=1.0)
    judged = judge("dynamic", Answers(probabilities=answers(97)), reference, Budget())
    assert judged.accuracy_drop > 0.01
    assert judged.reasons == ()
    assert judge("dynamic", Answers(probabilities=answers(96)), reference, Budget(0.0)).reasons


def test_an_agreement_of_exactly_the_budget_is_within_it():
    expected = np.tile([0.6, 0.4], (30, 1))
    found = expected.copy()
    found[:3] = found[:3, ::-1]
    judged = judge(
        "dynamic",
        Answers(probabilities=found),
        Reference(expected, None, ("a", "b"), 1.0),
        Budget(1 - 3 / 30),
    )
    assert "min_agreement" not in " ".join(judged.reasons)


def test_without_labels_there_is_no_accuracy(reference):
    unlabelled = Reference(reference.probabilities, None, CLASSES, 2.0)
    judged = judge("float32", Answers(probabilities=flipped(reference, 1)), unlabelled, Budget(0.9))
    assert judged.accuracy is None
    assert judged.accuracy_drop is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: np.where(np.arange(200)[:, None] == 7, np.nan, p), "not finite"),
        (lambda p: p[:, :2], r"shape \(200, 2\) instead of \(200, 3\)"),
        (lambda p: p[:199], r"shape \(199, 3\)"),
        (lambda p: p.ravel(), r"shape \(600,\)"),
        (lambda p: p * 2, "no probabilities"),
        (lambda p: p - 1 / 3, "no probabilities"),
    ],
)
def test_answers_that_cannot_be_measured_are_refused(reference, change, reason):
    answers = Answers(probabilities=change(reference.probabilities))
    judged = judge("float16", answers, reference, Budget())
    assert judged.agreement is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(judged.reasons[0])
    assert find_flaw(answers, reference) in judged.reasons[0]


def test_an_error_is_the_reason(reference):
    judged = judge("text", Answers(error="cannot be run: ValueError: no"), reference, Budget())
    assert judged.reasons == ("text: cannot be run: ValueError: no",)


def test_a_limit_of_the_budget_is_told_from_damage(reference, logits):
    beyond = judge("dynamic", Answers(probabilities=flipped(reference, 5)), reference, Budget())
    assert (len(beyond.reasons), beyond.flawed) == (2, False)
    named = Answers(probabilities=flipped(reference, 5), labels=("cat",) * 200)
    broken = replace(in_steps(reference.probabilities), inputs={"pixels": ("int8", 1.0, -128.0)})
    for variant, answers in (("dynamic", Answers(error="crashed")), ("onnx", named), ("int8", broken)):
        assert judge(variant, answers, reference, Budget()).flawed


def test_swapped_class_names_are_found_though_all_numbers_are_right(reference):
    swapped = {"cat": "dog", "dog": "cat", "owl": "owl"}
    names = tuple(swapped[CLASSES[index]] for index in reference.probabilities.argmax(axis=1))
    answers = Answers(probabilities=reference.probabilities, labels=names)
    (reason,) = judge("saved_model", answers, reference, Budget()).reasons
    assert "class list" in reason


def test_a_label_for_every_row(reference):
    answers = Answers(probabilities=reference.probabilities, labels=("cat",))
    assert "1 labels for 200 rows" in judge("saved_model", answers, reference, Budget()).reasons[0]


def test_logits_must_be_raw(reference, logits):
    good = Answers(probabilities=reference.probabilities, logits=logits)
    assert judge("saved_model", good, reference, Budget()).reasons == ()
    scaled = Answers(probabilities=reference.probabilities, logits=logits / 2.0)
    assert "logits" in judge("saved_model", scaled, reference, Budget()).reasons[0]


def test_logits_of_another_shape_are_refused(reference, logits):
    answers = Answers(probabilities=reference.probabilities, logits=logits[:, :2])
    (reason,) = judge("saved_model", answers, reference, Budget()).reasons
    assert "logits have the shape (200, 2) instead of (200, 3)" in reason


@pytest.mark.parametrize("gap", [0.02, float("nan")])
def test_endpoints_must_agree_with_each_other(reference, gap):
    answers = Answers(probabilities=reference.probabilities, endpoints={"serve": 0.0, "serve_ids": gap})
    (reason,) = judge("saved_model", answers, reference, Budget()).reasons
    assert "serve_ids" in reason


def test_endpoints_must_name_the_same_classes(reference):
    answers = Answers(
        probabilities=reference.probabilities,
        endpoints={"serve_ids": 0.0},
        endpoint_labels={"serve": 0, "serve_ids": 5},
    )
    (reason,) = judge("saved_model", answers, reference, Budget()).reasons
    assert "serve_ids names 5 rows otherwise" in reason


@pytest.mark.parametrize(
    "name",
    [
        "min_agreement",
        "max_accuracy_drop",
        "max_abs_difference",
        "min_robust_accuracy",
        "max_robust_accuracy_drop",
    ],
)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_budget_is_a_fraction(name, value):
    with pytest.raises(ConfigError, match=name):
        Budget(**{name: value})


def test_label_files_are_compared_in_order():
    assert check_label_file(b"cat\ndog\nowl\n", CLASSES) is None
    assert "order" in check_label_file(b"dog\ncat\nowl\n", CLASSES)
    assert "'ant'" in check_label_file(b"cat\ndog\nant\n", CLASSES)
