import csv
import io

import pytest

from tfapp.csv_text import csv_text


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "  =1",
        "\u00a0=1",
        "\ufeff=1+1",
        "\u200b@SUM(A1)",
        " \u200e\u2060-1",
        "\x00=1",
        "\t=1",
        "\rx",
        "\nx",
        "\uff1d1",
        "=cmd|' /C calc'!A0",
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_made_a_text(cell):
    ((read,),) = list(csv.reader(io.StringIO(csv_text(["text"], [[cell]]), newline="")))[1:]
    assert read == f"'{cell}"


@pytest.mark.parametrize(
    "cell", ["a = b", "", "1-1", "'=1", 'say "=1"', "a,=b", "酒店", "\ufeff", "\u200ba=1"]
)
def test_other_texts_stay_as_they_are(cell):
    ((read,),) = list(csv.reader(io.StringIO(csv_text(["text"], [[cell]]), newline="")))[1:]
    assert read == cell


def test_numbers_and_gaps_are_no_texts_and_names_of_columns_are():
    assert csv_text(["=a", "b", "c"], [[-0.5, 3, None]]) == "'=a,b,c\n-0.5,3,\n"


def test_a_byte_order_mark_is_written_on_request_and_read_back():
    plain, marked = (csv_text(["文本"], [["酒店"]], bom=bom) for bom in (False, True))
    assert marked == "\ufeff" + plain
    assert marked.encode().decode("utf-8-sig") == plain
