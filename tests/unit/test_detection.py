"""Chinese files in the encodings that spreadsheets and older programs write: told apart, or refused."""

from __future__ import annotations

import logging

import pytest

from tfapp.data.readers import read_source
from tfapp.data.readers.detection import mixed_lines, sure_encoding
from tfapp.data.readers.table import Columns
from tfapp.data.shards.blocks import text_blocks
from tfapp.errors import DataError

SIMPLIFIED = [
    "酒店的位置很好，服务员也很热情，下次还会来。",
    "这本书的内容太差了，我看了一半就不想看了！",
    "电脑用了三天就坏了，打电话过去也没有人理。",
    "孩子很喜欢，已经买过两次了。",
]
TRADITIONAL = [
    "酒店的位置很好，服務員也很熱情，下次還會來。",
    "這本書的內容太差了，我看了一半就不想看了！",
    "電腦用了三天就壞了，打電話過去也沒有人理。",
]
JAPANESE = ["このホテルはとても便利でした。部屋も綺麗です。", "もう一度行きたいと思います。朝食は残念。"]
KOREAN = ["호텔 위치가 아주 좋았고 직원도 친절했습니다.", "책 내용이 너무 지루해서 반만 읽었습니다."]
FRENCH = [
    "L'été dernier à l'hôtel : très agréable, même élégant.",
    "Le café était mauvais, la fenêtre cassée.",
]


def csv_of(texts, encoding):
    return ("text,label\n" + "".join(f"{text},{row % 2}\n" for row, text in enumerate(texts))).encode(
        encoding
    )


@pytest.mark.parametrize(
    ("texts", "encoding", "expected"),
    [
        (SIMPLIFIED, "utf-8", "utf-8"),
        (SIMPLIFIED, "utf-16", "utf-16"),
        (SIMPLIFIED, "gbk", "gb18030"),
        (SIMPLIFIED, "gb2312", "gb18030"),
        ([*SIMPLIFIED, "她叫㐂𠮷，住在䶮城。🙂"], "gb18030", "gb18030"),
        (TRADITIONAL, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (JAPANESE, "shift_jis", None),
        (JAPANESE, "euc-jp", None),
        (KOREAN, "euc-kr", None),
        (FRENCH, "latin-1", None),
        (FRENCH, "cp1252", None),
        (["好"], "gbk", None),
    ],
)
def test_an_encoding_is_told_only_where_the_bytes_leave_no_doubt(texts, encoding, expected):
    assert sure_encoding(csv_of(texts, encoding)) == expected


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "big5", "utf-8", "utf-16"])
def test_auto_reads_the_texts_and_says_in_which_encoding(encoding, tmp_path, caplog):
    texts = TRADITIONAL if encoding == "big5" else SIMPLIFIED
    path = tmp_path / "reviews.csv"
    path.write_bytes(csv_of(texts, encoding))
    with caplog.at_level(logging.INFO, logger="tfapp"):
        table = read_source(path, Columns("text", "label"), name="source", format=None, encoding="auto")
    assert table.texts.tolist() == texts
    assert ("is read as" in caplog.text) == (encoding != "utf-8")
    blocks = b"".join(block.data for block in text_blocks(path, "auto", quoted=True)).decode()
    assert blocks.splitlines() == csv_of(texts, "utf-8").decode().splitlines()


def test_characters_of_four_bytes_are_read(tmp_path):
    path = tmp_path / "reviews.csv"
    rare = "她叫㐂𠮷，住在䶮城，很喜欢这个酒店的服务。🙂"
    assert max(len(letter.encode("gb18030")) for letter in rare) == 4
    path.write_bytes(csv_of([*SIMPLIFIED, rare], "gb18030"))
    table = read_source(path, Columns("text", "label"), name="source", format=None, encoding="auto")
    assert table.texts[-1] == rare


def test_the_refusal_as_utf8_names_the_encoding_that_it_is(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_bytes(csv_of(SIMPLIFIED, "gbk"))
    with pytest.raises(DataError, match=r"line 2 is not utf-8.*is gb18030: pass encoding='gb18030'"):
        read_source(path, Columns("text", "label"), name="source", format=None, encoding="utf-8")


@pytest.mark.parametrize("encoding", ["auto", "utf-8"])
def test_a_file_that_mixes_encodings_is_refused_with_its_lines(encoding, tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_bytes(csv_of(SIMPLIFIED, "utf-8") + f"{SIMPLIFIED[0]},1\n".encode("gbk"))
    assert mixed_lines(path.read_bytes()) == (2, 6)
    with pytest.raises(DataError, match=r"line 2 is UTF-8 and line 6 is not"):
        read_source(path, Columns("text", "label"), name="source", format=None, encoding=encoding)


def test_without_certainty_auto_refuses(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_bytes(csv_of(FRENCH, "latin-1"))
    with pytest.raises(DataError, match="cannot be told for sure"):
        read_source(path, Columns("text", "label"), name="source", format=None, encoding="auto")


def test_utf8_that_is_read_in_another_encoding_is_told(tmp_path, caplog):
    path = tmp_path / "reviews.csv"
    path.write_bytes(csv_of(["很好很好"] * 4, "utf-8"))
    read_source(path, Columns("text", "label"), name="source", format=None, encoding="gb18030")
    assert "is valid UTF-8 and is read as gb18030" in caplog.text


def test_chinese_reviews_are_told_and_mistaken_for_nothing_else(tfapp_data):
    content = (tfapp_data / "chnsenticorp" / "validation.csv").read_text("utf-8")[:60_000]
    assert sure_encoding(content.encode("gb18030")) == "gb18030"
