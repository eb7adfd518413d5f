"""Lines of Chinese and English, and a SentencePiece model that is trained on them."""

import functools
import io
import itertools

import sentencepiece

_SUBJECTS = [
    "这家酒店",
    "房间",
    "服务员",
    "这本书",
    "笔记本电脑",
    "屏幕",
    "早餐",
    "the hotel",
    "this book",
    "键盘",
]
_ADVERBS = ["非常", "不太", "真的很", "有点", "一点也不", "还算", "very", "not so"]
_WORDS = ["好", "干净", "满意", "失望", "有趣", "便宜", "慢", "good", "clean", "useful"]
_ENDS = ["!", "。", ",下次还来。", ",不推荐", "... ok", "?"]

LINES = [
    "".join(parts)
    for number, parts in enumerate(itertools.product(_SUBJECTS, _ADVERBS, _WORDS, _ENDS))
    if number % 17 == 0
]


@functools.cache
def sentencepiece_model() -> bytes:
    """Trains a unigram model of about 200 pieces, the same at every call."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*LINES, *"abcdefghijklmnopqrstuvwxyz", "我喜欢你们的价格"]),
        model_writer=stream,
        model_type="unigram",
        vocab_size=200,
        hard_vocab_limit=False,
        character_coverage=1.0,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return stream.getvalue()
