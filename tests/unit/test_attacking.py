"""What `tfapp attack` measures: which settings of the workflow file and of the command line count."""

import pytest

from tfapp.commands import _attacking
from tfapp.config_sections import AttackSection


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (None, {"num_steps": 7, "num_restarts": 2, "epsilon": 0.1, "norm": "l2"}),
        ("pgd", {"num_steps": 7, "num_restarts": 2, "epsilon": 0.1, "norm": "l2"}),
        ("square", {"epsilon": 0.1, "norm": "l2"}),
        ("standard", {"epsilon": 0.1, "norm": "l2"}),
        ("character_edits", {}),
    ],
)
def test_another_attack_takes_the_rows_of_the_file_and_a_budget_of_the_same_kind(name, kept):
    section = AttackSection(
        attack="pgd", epsilon=0.1, norm="l2", num_steps=7, num_restarts=2, examples=9, seed=3
    )
    settings = {key: value for key, value in _attacking._of_file(section, name).items() if value is not None}
    settings.pop("attack", None)
    assert settings == {"examples": 9, "seed": 3, **kept}


@pytest.mark.parametrize("name", ["embedding_pgd", "word_substitution"])
def test_a_share_of_letters_is_no_budget_of_another_attack(name):
    section = AttackSection(attack="character_edits", epsilon=0.4, max_queries=9, examples=9)
    assert _attacking._of_file(section, name) == {"examples": 9, "seed": 0}


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the two measurements, by name."""
    asked = {}
    for name in ("evaluate_robustness", "robustness_curve"):
        monkeypatch.setattr(
            _attacking, name, lambda model, split, name=name, **options: asked.update({name: options})
        )
    return asked


def test_the_curve_is_of_the_same_attack_with_the_same_settings(asked):
    settings = {"attack": "pgd", "epsilon": 0.1, "num_steps": 3, "num_restarts": 2, "examples": 9, "seed": 3}
    _attacking._measure(None, None, settings, curve=True, corruptions=False)
    assert asked["robustness_curve"] == asked["evaluate_robustness"] == settings


def test_the_curve_beside_the_ensemble_is_of_an_attack_with_settings_of_its_own(asked):
    settings = {"attack": "standard", "epsilon": 0.1, "num_steps": 3, "examples": 9}
    _attacking._measure(None, None, settings, curve=True, corruptions=False)
    assert asked["robustness_curve"] == {"attack": "", "epsilon": 0.1, "examples": 9}
