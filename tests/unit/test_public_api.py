"""What the package promises to those who import it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tfapp

ROOT = Path(tfapp.__file__).parent
MODULES = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
# Each family, and the folder whose modules are its members.
FAMILIES = [
    ("tfapp.attacks", "ATTACKS"),
    ("tfapp.commands", "COMMANDS"),
    ("tfapp.data.augment", "AUGMENTATIONS"),
    ("tfapp.data.datasets", "DATASETS"),
    ("tfapp.exporters", "EXPORTERS"),
    ("tfapp.objectives", "OBJECTIVES"),
]


def test_importing_tfapp_loads_no_tensorflow():
    code = "import sys, tfapp; print(sorted({'tensorflow', 'keras', 'numpy', 'pandas'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_no_public_name_is_the_name_of_a_module():
    assert MODULES.isdisjoint(set(tfapp.__all__) - {"__version__"})


@pytest.mark.parametrize("name", sorted(set(tfapp.__all__) - {"__version__"}))
def test_every_public_name_exists_and_is_explained(name):
    value = getattr(tfapp, name)
    assert inspect.getdoc(value)
    assert name in dir(tfapp)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        tfapp.trane  # noqa: B018


@pytest.mark.parametrize(("module", "dictionary"), FAMILIES)
def test_each_family_lists_exactly_the_files_of_its_folder(module, dictionary):
    package = __import__(module, fromlist=[dictionary])
    folder = Path(package.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    members = getattr(package, dictionary).values()
    makers = [getattr(member, "reader", None) or getattr(member, "callback", member) for member in members]
    homes = [maker.__module__.rpartition(".")[2] for maker in makers]
    assert sorted(homes) == sorted(files)


def test_help_imports_nothing_that_is_slow():
    code = (
        "import sys\nfrom tfapp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "slow = {'tensorflow', 'keras', 'numpy', 'pandas', 'pyarrow', 'sklearn', 'scipy', 'matplotlib',"
        " 'pydantic', 'rich'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: tfapp" in result.stdout
    assert result.stdout.endswith("\n[]\n")


@pytest.mark.parametrize(
    ("configuration", "lines"),
    [
        ("", ["fetching"]),
        ("logging.basicConfig(level='INFO', format='root: %(message)s')", ["root: fetching"]),
        ("logging.basicConfig(level='INFO', format='root: %(message)s', force=True)", ["root: fetching"]),
        ("logging.basicConfig()", []),
        ("logging.basicConfig(); logging.getLogger('tfapp').setLevel('INFO')", ["INFO:tfapp:fetching"]),
        ("logging.getLogger('tfapp').addHandler(logging.StreamHandler())", ["fetching"]),
        ("logging.getLogger('tfapp').addHandler(logging.NullHandler())", []),
        ("logging.getLogger('tfapp').setLevel('WARNING')", []),
        ("from tfapp.terminal import log_to_terminal; log_to_terminal()", ["fetching"]),
    ],
)
@pytest.mark.parametrize("order", ["before", "after"])
def test_messages_are_seen_once_whatever_logging_is_configured(configuration, lines, order):
    code = ["import tfapp", configuration] if order == "after" else [configuration, "import tfapp"]
    code = ["import logging", *code, "import tfapp.assets", "tfapp.assets._logger.info('fetching')"]
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True
    )
    assert result.stderr.splitlines() == lines
    assert result.stdout == ""
