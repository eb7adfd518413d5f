"""The command line: exit codes, what goes to which stream, and what users read when they err."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import tfapp
from tfapp import cli, terminal
from tfapp.commands.run import ARTIFACT_COLUMNS
from tfapp.errors import DataError, ReleaseRefused

pytestmark = pytest.mark.usefixtures("logger_as_before")

WORKFLOW = 'name = "reviews"\n[data]\ntrain = "reviews.csv"\n'


def run_cli(*arguments: str) -> int:
    """Runs the command line in this process and returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def workflow_file(tmp_path) -> Path:
    path = tmp_path / "workflow.toml"
    path.write_text(WORKFLOW)
    return path


@pytest.fixture
def fake_workflow(monkeypatch):
    """Replaces the workflow by a function that the test sets; TensorFlow stays unloaded."""
    monkeypatch.setattr(terminal, "load_tensorflow", lambda: None)

    def replace(function):
        import tfapp.workflow

        monkeypatch.setattr(tfapp.workflow, "run_workflow", function)

    return replace


def test_version(capsys):
    assert run_cli("--version") == 0
    assert capsys.readouterr().out == f"tfapp {tfapp.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["predict"], ["presets"], ["verify"], ["diff"], ["prune"], ["attack"], ["doctor"]],
)
def test_every_command_explains_itself(capsys, command):
    assert run_cli(*command, "--help") == 0
    assert "Usage: tfapp" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["runn"], ["run"], ["run", "x.toml", "--sett", "a=1"], ["predict"], ["presets", "fetch"], ["attack"]],
)
def test_wrong_usage_ends_with_status_2_and_nothing_on_standard_output(capsys, arguments):
    assert run_cli(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: tfapp" in captured.err


def test_a_wrong_config_ends_with_status_2_and_no_traceback(capsys, workflow_file):
    assert run_cli("run", workflow_file, "--set", "train.loss=focl") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --set: train.loss = 'focl'")
    assert "Traceback" not in error


@pytest.mark.parametrize("position", ["before", "after"])
def test_debug_shows_the_traceback(capsys, tmp_path, position):
    command = ["run", tmp_path / "none.toml"]
    assert run_cli(*(["--debug", *command] if position == "before" else [*command, "--debug"])) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "no such workflow file" in error


def test_released_prints_the_table_and_the_path(capsys, workflow_file, fake_workflow, tmp_path):
    rows = [{column: column.upper() for column in ARTIFACT_COLUMNS} | {"path": "edge/x.tflite"}]
    path, checksum = tmp_path / "out" / "reviews" / "3", "ab" * 32
    release = SimpleNamespace(version=3, path=path, table=lambda: rows, manifest_sha256=checksum)

    def run_workflow(config, *, output, fresh):
        assert (config.name, output, fresh) == ("reviews", tmp_path / "out", True)
        return SimpleNamespace(release=release)

    fake_workflow(run_workflow)
    assert run_cli("run", workflow_file, "--output", tmp_path / "out", "--fresh") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "release reviews 3"
    assert any(line.split()[:1] == ["ARTIFACT"] and line.split()[-1] == "VERDICT" for line in lines)
    assert lines[-3] == f"Released: {release.path}"
    assert lines[-2].startswith(f"Manifest sha256: {checksum}.")
    assert lines[-1] == f"  tfapp verify {release.path} --manifest-sha256 {checksum}"


def test_refused_ends_with_status_1_and_the_reasons(capsys, workflow_file, fake_workflow, tmp_path):
    def run_workflow(config, *, output, fresh):
        raise ReleaseRefused(["dynamic: agreement 0.91 is below 0.99"], tmp_path / "refused-1")

    fake_workflow(run_workflow)
    assert run_cli("run", workflow_file) == 1
    captured = capsys.readouterr()
    assert "dynamic: agreement 0.91 is below 0.99" in captured.err
    assert "refused-1" in captured.err
    assert captured.out == ""


def test_interrupted_ends_with_status_3_and_says_how_to_go_on(capsys, workflow_file, fake_workflow):
    def run_workflow(config, *, output, fresh):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    fake_workflow(run_workflow)
    assert run_cli("run", workflow_file) == 3
    assert "Run the same command again to continue" in capsys.readouterr().err


def test_an_unforeseen_error_is_no_refusal(capsys, workflow_file, fake_workflow):
    def run_workflow(config, *, output, fresh):
        raise ZeroDivisionError("x")

    fake_workflow(run_workflow)
    assert run_cli("run", workflow_file) not in (0, 1, 2, 3)
    assert "bug in tfapp" in capsys.readouterr().err


@pytest.fixture
def fake_release(monkeypatch):
    """Replaces the predictor by one that says how long each text is."""
    import tfapp.serving

    monkeypatch.setattr(terminal, "load_tensorflow", lambda: None)

    def predict_each(texts):
        for text in texts:
            if text.startswith("bad"):
                yield DataError(f"{text}: no answer")
            else:
                label = "long" if len(text) > 4 else "short"
                yield SimpleNamespace(label=label, probabilities={"long": 0.25, "short": 0.75})

    monkeypatch.setattr(
        tfapp.serving,
        "load_release",
        lambda path, *, manifest_sha256: SimpleNamespace(
            predict_each=predict_each, feature="text", classes=("long", "short")
        ),
    )


def test_predict_writes_a_json_line_a_text_when_piped(capsys, tmp_path, fake_release):
    source = tmp_path / "texts.txt"
    source.write_bytes("\ufeffcrème brûlée\r\n\n中文\n".encode())
    assert run_cli("predict", "release", "one", "--file", source) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["one", "crème brûlée", "中文"]
    assert [answer["label"] for answer in answers] == ["short", "long", "short"]
    assert answers[0]["probabilities"] == {"long": 0.25, "short": 0.75}


@pytest.mark.parametrize("options", [(), ("--bom",)])
def test_predict_writes_a_table_that_spreadsheets_open(capsys, tmp_path, fake_release, options):
    path = tmp_path / "new" / "answers.csv"
    assert run_cli("predict", "release", "酒店很好", "=1+1", "--csv", path, *options) == 0
    content = path.read_bytes()
    assert content.startswith("\ufeff".encode()) == bool(options)
    assert content.decode("utf-8-sig") == (
        "text,label,probability of long,probability of short\n"
        "酒店很好,short,0.25,0.75\n'=1+1,short,0.25,0.75\n"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [("--bom",), ("--csv", "a.csv", "--json")])
def test_predict_refuses_options_of_csv_that_do_nothing(capsys, fake_release, options):
    assert run_cli("predict", "release", "one", *options) == 2
    assert "--csv" in capsys.readouterr().err


def test_a_cut_text_counts_wide_characters_as_two():
    from tfapp.terminal import fitted

    assert fitted("酒店很好", 8) == "酒店很好"
    assert fitted("酒店很好吗", 8) == "酒店..."
    assert fitted("a" * 9, 8) == "aaaaa..."


def test_columns_of_wide_characters_are_aligned(capsys):
    from rich.cells import cell_len

    from tfapp.terminal import print_table

    print_table(
        "", [{"类别": "财经", "n": "|"}, {"类别": "sports", "n": "|"}, {"类别": "科技（数码）", "n": "|"}]
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert len({cell_len(line.partition("|")[0]) for line in lines}) == 1


def test_predict_breaks_lines_at_line_feeds_only(capsys, tmp_path, fake_release):
    source = tmp_path / "texts.txt"
    texts = ["one\u2028line", "next\u0085line", "tab\x0band\x0cfeed", "carriage\rreturn"]
    source.write_bytes("\r\n".join([*texts, "", " \t", "last"]).encode())
    assert run_cli("predict", "release", "--file", source) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]
    assert [answer["text"] for answer in answers] == [*texts, "last"]


def test_predict_refuses_an_argument_that_is_not_utf8(capsys, fake_release):
    assert run_cli("predict", "release", "good", b"caf\xe9".decode("utf-8", "surrogateescape")) == 2
    assert "the text 'caf\\udce9' holds bytes that are not" in capsys.readouterr().err


def test_predict_answers_the_others_and_ends_with_status_2(capsys, fake_release):
    assert run_cli("predict", "release", "one", "bad 1", "two", "bad 2") == 2
    captured = capsys.readouterr()
    assert [json.loads(line)["text"] for line in captured.out.splitlines()] == ["one", "two"]
    assert captured.err.splitlines() == [
        "error: bad 1: no answer",
        "error: bad 2: no answer",
        "error: 2 of 4 texts could not be classified, as said above; repair them or leave them out.",
    ]


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_verify_ends_with_status_0_or_1_and_the_reasons(capsys, monkeypatch, tmp_path, ok, status):
    import tfapp.release
    from tfapp.release import VerifyReport

    report = VerifyReport("ab" * 32, proven=ok, notes=["a note"])
    report.add("text", [] if ok else ["text: 2 answers differ"], "as released")
    asked = []

    def verify(path, **options):
        asked.append((path, options))
        return report

    monkeypatch.setattr(terminal, "load_tensorflow", lambda: None)
    monkeypatch.setattr(tfapp.release, "verify", verify)
    assert run_cli("verify", tmp_path, "--manifest-sha256", "cd", "--files-only") == status
    assert asked == [(tmp_path, {"manifest_sha256": "cd", "files_only": True})]
    captured = capsys.readouterr()
    assert report.rows[0]["verdict"] in captured.out
    assert "note: a note" in captured.out
    assert f"{report.summary}. Manifest sha256: {'ab' * 32}" in captured.out
    assert captured.err == ("" if ok else "  - text: 2 answers differ\n")
    assert run_cli("verify", tmp_path, "--json") == status
    assert json.loads(capsys.readouterr().out) == report.to_dict()


def test_prune_tells_what_it_frees_and_removes_it(capsys, tmp_path):
    for number in range(1, 4):
        (tmp_path / "reviews" / str(number)).mkdir(parents=True)
        (tmp_path / "reviews" / str(number) / "manifest.json").write_text("." * 1_000_000)
    assert run_cli("prune", tmp_path / "reviews", "--keep", "1", "--dry-run") == 0
    assert "Would free 2.0 MB." in capsys.readouterr().out
    assert len(list((tmp_path / "reviews").iterdir())) == 3
    assert run_cli("prune", tmp_path / "reviews", "--keep", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == 2_000_000
    assert [path.name for path in (tmp_path / "reviews").iterdir()] == ["3"]
    assert run_cli("prune", tmp_path / "reviews", "--keep", "0") == 2
    assert run_cli("prune", tmp_path / "absent") == 2


def test_diff_takes_columns_with_data_only(capsys):
    assert run_cli("diff", "a", "b", "--column", "text") == 2
    assert "--column goes with --data" in capsys.readouterr().err


@pytest.mark.parametrize("warnings", [[], ["TFAPP_DATA=/x is not a folder."]])
def test_doctor_tells_what_it_found_and_ends_with_status_0(capsys, monkeypatch, warnings):
    import tfapp.doctor
    from tfapp.doctor import Findings, Section

    def break_tensorflow():
        raise ImportError("no TensorFlow here")

    findings = Findings([Section("Libraries", [("numpy", "9.9")])], warnings)
    monkeypatch.setattr(terminal, "load_tensorflow", break_tensorflow)
    monkeypatch.setattr(tfapp.doctor, "examine", lambda: findings)
    assert run_cli("doctor") == 0
    printed = capsys.readouterr().out
    assert "9.9" in printed
    said = [line for line in printed.splitlines() if line.startswith(("warning", "No problem"))]
    assert said == ([f"warning: {warnings[0]}"] if warnings else ["No problem found."])


def test_predict_names_the_line_that_is_not_utf8(capsys, tmp_path, fake_release):
    source = tmp_path / "texts.txt"
    source.write_bytes(b"good\nbr\xfbl\xe9e\n")
    assert run_cli("predict", "release", "--file", source) == 2
    assert "texts.txt, line 2: not UTF-8" in capsys.readouterr().err


def test_predict_without_any_text_is_refused(capsys, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    assert run_cli("predict", "release", "--file", tmp_path / "empty.txt") == 2
    assert "nothing to classify" in capsys.readouterr().err


def test_presets_tells_origin_licence_size_and_cache(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path))
    assert run_cli("presets") == 0
    listed = capsys.readouterr().out
    assert run_cli("presets", "list") == 0
    assert capsys.readouterr().out == listed
    facts = ("minilm-l6", "Apache-2.0", "83.5", "22.7 M weights", "bbc-news", "five topics", "BBC", "no")
    for fact in (*facts, str(tmp_path)):
        assert fact in listed


def test_an_unknown_preset_gets_the_nearest_name(capsys):
    assert run_cli("presets", "fetch", "minlm-l6") == 2
    assert "did you mean 'minilm-l6'?" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", " \n"])
def test_serve_without_the_token_that_was_meant_to_be_there_does_not_start(
    capsys, tmp_path, monkeypatch, token
):
    monkeypatch.setenv("TFAPP_TOKEN", token)
    monkeypatch.setattr(terminal, "load_tensorflow", lambda: pytest.fail("too late"))
    assert run_cli("serve", tmp_path) == 2
    assert "TFAPP_TOKEN is set but empty" in capsys.readouterr().err


def test_the_command_line_starts_without_tensorflow():
    code = (
        "import sys, tfapp, tfapp.cli, tfapp.config, tfapp.errors, tfapp.assets, tfapp.workflow\n"
        "print(sorted({'tensorflow', 'keras', 'pandas', 'sklearn', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"'{sys.executable}' -m tfapp presets | true"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in result.stderr
