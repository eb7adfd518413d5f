"""A Chinese character that looks alike."""

from __future__ import annotations

from functools import cache

import numpy as np

from tfapp.data.edits._edit import others

_GROUPS = """
己已巳 未末 土士 人入八 日曰 干千于 大太犬丈 天夭夫无 刀力 贝见 午牛 王玉主 田由甲申
白自 目且 木本术 今令 免兔 鸟乌 休体 买卖实 又叉 候侯 间问闻 住往注驻柱 情清请晴睛
很恨狠 比北 设没 话活 明朋 坏环怀 部陪倍培赔 期欺 车东 厅厂广 户尸 便使 味昧妹
抱饱泡跑炮 远运 近进 早旱 货贷贺 格恪 宜宣 直真 线钱浅贱 读续 推堆谁难准 毛手 作昨
地池他她 脑恼 建健键 盘盆 块快 慢漫 冷泠 效较校 普晋 班斑 晚挽 员圆 度席 待侍持
周同 到倒 小少 水永冰 了子 外处 内肉 西酉 方万 低抵底 头买 思恩 感惑 记纪 忘忙
说税锐 析折拆 辛幸 戊戌戍成 毫豪 崇祟 茶荼 栗粟 冶治 沮阻 竟竞 梁粱 墓暮慕幕
摸模膜漠 峰锋蜂 板版扳 历厉 象像 哀衷衰 延廷 暖缓 爪瓜 孤弧狐 喧暄 喝渴竭 彩踩采睬
密蜜 撤撒 拣炼练 券卷 籍藉 弋戈 拔拨 辨辩辫 酒洒 坐座 找我 换唤 碎醉 破坡玻披 江汪
云去 花化 村材 银根 石右 河何 海悔 湖糊 但担坦 错借惜 房访防 所听 服报 机肌饥 好奶
看着 办为 每母 安按 样洋 影景 精清 非排 常堂 帮绑 特持 亮高 点店 容客 最景 新亲
洁结 净挣 饭贩 店底 硬便 读诗 情惰 完元 全金 公分 司同 务各 经径轻 理里 程逞 简筒
美姜羡 丽两 气乞 温湿 态志 差羞着 极级吸 般船 赞替 爱受 喜善 欢吹 剧据居 情倩 乐东
曲由 唱倡
"""


def zh_lookalike(word: str, rng: np.random.Generator) -> list[str]:
    """Replaces one character by one that looks alike.

    Args:
        word: A word; characters that are in no group of look-alikes have no candidate.
        rng: Not used: all look-alikes are returned.

    Returns:
        The words that one replacement makes.
    """
    alike = lookalikes()
    pairs = ((at, double) for at, character in enumerate(word) for double in alike.get(character, ""))
    return others(word, (word[:at] + double + word[at + 1 :] for at, double in pairs))


@cache
def lookalikes() -> dict[str, str]:
    """The look-alikes of each character that has any; a character is one of its look-alikes' own."""
    alike: dict[str, str] = {}
    for group in _GROUPS.split():
        for character in group:
            alike[character] = alike.get(character, "") + group.replace(character, "")
    return {character: "".join(dict.fromkeys(doubles)) for character, doubles in alike.items() if doubles}
