"""How messages word the names that exist."""

from __future__ import annotations

import pytest

from tfapp.errors import ConfigError, check_known


def test_unknown_names_are_refused_with_what_there_is():
    check_known(["range", "steps"], {"steps": 1, "range": 2}, "setting")
    with pytest.raises(ConfigError, match=r"^unknown setting 'step'; did you mean 'steps'\?$"):
        check_known(["range", "step"], iter(["steps", "range"]), "setting")
    with pytest.raises(ConfigError, match=r"^unknown setting 3; choices: 'range', 'steps'$"):
        check_known([3], ["steps", "range"], "setting")
    with pytest.raises(ConfigError, match=r"^unknown setting 'step'; there is none$"):
        check_known(["step"], [], "setting")
