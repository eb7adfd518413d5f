"""The page of a text release in a real browser, from a plain server of static files."""

import json
import shutil

import numpy as np
import pytest
from browser import static_server

from tfapp.data.text import TextSplit
from tfapp.release import Budget, export, verify
from tfapp.training.inference import predict_logits

pytestmark = pytest.mark.browser

TEXTS = ["good film", "The BANK's share price fell; profit warnings — café!", "vote " * 60, "🙂 中文"]
WITHOUT_RELAXED_SIMD = """{
  const { instantiate, validate } = WebAssembly;
  const isCheck = (content) => content.byteLength < 200;
  const refuse = () => { throw new WebAssembly.CompileError("not here"); };
  WebAssembly.instantiate = (content, ...rest) => isCheck(content) ? refuse() : instantiate(content, ...rest);
  WebAssembly.validate = (content, ...rest) => !isCheck(content) && validate(content, ...rest);
}"""

WITHOUT_PAUSE = "{ const real = setTimeout; globalThis.setTimeout = (work) => real(work, 0); }"
WITHOUT_FRAMES_AND_DYNAMIC = """{
  const real = fetch;
  const until = (signal) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  globalThis.fetch = (path, options) =>
    path.includes("dynamic") ? until(options.signal) : real(path, options);
  globalThis.requestAnimationFrame = () => 0;
}"""


@pytest.fixture(scope="module", params=["truncate", "windows"])
def released(request, decided_classifier, test_split, litertjs, tmp_path_factory):
    """A model and a release of it with a page; one of two models splits long texts into windows."""
    model = type(decided_classifier).from_config(decided_classifier.get_config())
    model.set_weights(decided_classifier.get_weights())
    model.temperature = decided_classifier.temperature
    if request.param == "windows":
        model.preprocessor.max_length, model.preprocessor.long_texts = 8, "windows"
    labels = predict_logits(model, test_split.texts).argmax(axis=1).astype(np.int32)
    split = TextSplit("test", test_split.texts, labels, model.classes)
    folder = tmp_path_factory.mktemp("saved_models") / f"tiny-{request.param}"
    budget = Budget(min_agreement=0.95, max_accuracy_drop=0.05)
    return model, export(
        model, folder, check_with=split, variants=["float32", "dynamic"], budget=budget, web=True
    )


@pytest.fixture(scope="module")
def server(released):
    with static_server(released[1].path / "edge") as address:
        yield address


def wait_until_ready(page):
    page.wait("['ready', 'failed'].includes(document.documentElement.dataset.state)")
    assert page.run("document.documentElement.dataset.state") == "ready", page.run("document.body.innerText")


def open_page(browser, address, **options):
    page = browser.open(address, **options)
    wait_until_ready(page)
    return page


def choose_variant(page, variant):
    page.run(
        "{ const chosen = document.getElementById('variant'); "
        f"chosen.value = '{variant}'; chosen.dispatchEvent(new Event('change')); }}"
    )
    page.wait(f"document.getElementById('facts').textContent.startsWith('model-{variant}.tflite')")
    wait_until_ready(page)


def type_text(page, text):
    """Types a text and returns the answer: probabilities in per cent by class, the first one first."""
    page.run("document.getElementById('result').hidden = true")
    page.run(
        "{ const box = document.getElementById('text'); "
        f"box.value = {json.dumps(text)}; box.dispatchEvent(new Event('input')); }}"
    )
    page.wait("!document.getElementById('result').hidden")
    wait_until_ready(page)
    rows = page.run(
        "Array.from(document.querySelectorAll('.bar'), (row) => "
        "[row.querySelector('.label').textContent, row.querySelector('.value').textContent])"
    )
    return {label: float(value.removesuffix(" %")) for label, value in rows}


def probabilities(model, texts):
    scaled = predict_logits(model, texts) / model.temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def self_check(page):
    page.run("document.getElementById('check').click()")
    page.wait("document.getElementById('verdict').dataset.found")
    wait_until_ready(page)
    return json.loads(page.run("document.getElementById('verdict').dataset.found"))


def test_the_page_is_part_of_the_release_and_verified(released):
    _, release = released
    assert release.manifest["files"]["edge/web/index.html"]
    assert release.manifest["files"]["edge/web/litert/litert_wasm_internal.wasm.gz"]
    assert verify(release.path).ok


def test_typed_texts_are_answered_as_the_model_does_and_nothing_leaves_the_place(browser, server, released):
    model, _ = released
    page = open_page(browser, f"{server}web/?variant=float32")
    for text, expected in zip(TEXTS, probabilities(model, TEXTS), strict=True):
        answer = type_text(page, text)
        assert next(iter(answer)) == model.classes[expected.argmax()]
        found = [answer[name] for name in model.classes]
        np.testing.assert_allclose(found, expected * 100, atol=0.06)
    assert page.run("document.getElementById('answer').textContent") in model.classes
    assert page.complaints() == []
    asked = page.requests()
    assert all(url.startswith(server) for url in asked), asked
    assert sum(url.endswith(".wasm.gz") for url in asked) == 1


@pytest.mark.parametrize("variant", ["dynamic", "float32"])
def test_the_golden_vectors_are_answered_as_at_export(browser, server, variant):
    page = open_page(browser, f"{server}web/?variant={variant}")
    found = self_check(page)
    assert (found["agree"] + found["ties"], found["same"], found["total"]) == (50, 50, 50)
    assert found["largest"] <= found["tolerance"]
    assert page.run("document.getElementById('verdict').className") == "good"


def test_the_speed_is_measured_and_the_variant_can_be_changed(browser, server):
    page = open_page(browser, f"{server}web/", before=WITHOUT_PAUSE)
    assert page.run("document.getElementById('variant').value") == "dynamic"
    assert page.run("document.getElementById('repeat').disabled")
    type_text(page, "good film")
    # What comes while the speed is measured waits, and what is measured is what was there before.
    page.run(
        "{ document.getElementById('repeat').click(); const box = document.getElementById('text'); "
        "box.value = ''; box.dispatchEvent(new Event('input')); }"
    )
    page.wait(
        "/^p50 [0-9.]+ ms, p95 [0-9.]+ ms, of 50 calls$/.test(document.getElementById('speed').textContent)"
    )
    wait_until_ready(page)
    assert page.run("document.getElementById('status').className").split() == ["status"]
    page.wait("document.getElementById('result').hidden")
    choose_variant(page, "float32")
    assert page.run("document.getElementById('speed').textContent") == ""
    found = self_check(page)
    assert found["agree"] + found["ties"] == 50


def test_a_browser_without_relaxed_simd_gets_the_other_build(browser, server):
    page = open_page(browser, f"{server}web/", before=WITHOUT_RELAXED_SIMD)
    assert "(SIMD)" in page.run("document.getElementById('facts').textContent")
    assert any("compat" in url for url in page.requests())
    found = self_check(page)
    assert found["agree"] + found["ties"] == 50


def test_a_server_that_decodes_compressed_files_will_do(browser, released):
    with static_server(released[1].path / "edge", decoding=True) as address:
        page = open_page(browser, f"{address}web/")
        assert type_text(page, "good film")


def test_what_is_missing_is_said(browser, released, tmp_path):
    edge = tmp_path / "edge"
    shutil.copytree(released[1].path / "edge", edge)
    (edge / "model-dynamic.tflite").unlink()
    with static_server(edge) as address:
        page = open_page(browser, f"{address}web/")
        assert "../model-dynamic.tflite cannot be loaded: 404" in page.run("document.body.innerText")
        choose_variant(page, "float32")
        assert type_text(page, "good film")
        (edge / "web" / "litert" / "index.js").write_text(
            "export const loadLiteRt = () => { throw new Error('no WebAssembly'); }, loadAndCompile = null, "
            "supportsFeature = null, Tensor = null;"
        )
        page = browser.open(f"{address}web/")
        page.wait("document.documentElement.dataset.state === 'failed'")
        assert "no WebAssembly" in page.run("document.body.innerText")
        assert page.run("document.getElementById('page').hidden")


def test_what_never_comes_does_not_hold_up_the_rest(browser, server):
    page = browser.open(f"{server}web/", before=WITHOUT_FRAMES_AND_DYNAMIC)
    page.wait("!document.getElementById('page').hidden && !document.getElementById('variant').disabled")
    choose_variant(page, "float32")
    assert type_text(page, "good film")
    assert page.run("document.getElementById('status').textContent") == ""


def test_names_are_shown_as_they_are_and_fit_a_phone(browser, released, tmp_path):
    edge = tmp_path / "edge"
    shutil.copytree(released[1].path / "edge", edge)
    names = ["<script>document.title = 'bad'</script>", "w" * 200, "عربي & <b>"]
    settings = json.loads((edge / "web" / "settings.json").read_text(encoding="utf-8"))
    settings["classes"], settings["name"] = names, "<img src=x onerror=alert(1)>"
    (edge / "web" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    with static_server(edge) as address:
        page = open_page(browser, f"{address}web/", width=390, height=844)
        assert set(type_text(page, "good film")) == set(names)
        assert page.run("document.title") == settings["name"]
        assert page.run("document.images.length") == 1
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.complaints() == []
        light = page.run("getComputedStyle(document.documentElement).backgroundColor")
        page.show(width=390, height=844, dark=True)
        assert page.run("getComputedStyle(document.documentElement).backgroundColor") != light
