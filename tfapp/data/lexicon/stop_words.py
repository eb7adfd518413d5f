"""English words that carry grammar rather than meaning, and are never replaced."""

from __future__ import annotations

_WORDS = """
a about above across after again against ain all almost alone along already also although always am among
amongst an and another any anybody anyhow anyone anything anyway anywhere apart are aren around as aside at
away be became because become becomes been before beforehand behind being below beside besides between
beyond both but by ca can cannot could couldn d did didn do does doesn doing done don down due during each
either else elsewhere enough even ever every everybody everyone everything everywhere except few first for
former from further furthermore had hadn has hasn have haven having he hence her here hers herself him
himself his how however i if in indeed instead into is isn it its itself just last latter least less ll m ma
many may me meanwhile might mightn mine more moreover most mostly much must mustn my myself n t nt namely
needn neither never nevertheless next no nobody none nonetheless noone nor not nothing now nowhere o of off
often on once one only onto or other others otherwise ought our ours ourselves out over per perhaps please
quite rather re really s same several shall shan she should shouldn since so some somebody somehow someone
something sometime sometimes somewhere still such than that the their theirs them themselves then thence
there thereafter thereby therefore therein thereupon these they this those though through throughout thru
thus to together too toward towards two under unless until up upon us used using various ve very via was
wasn we well were weren what whatever when whenever where whereas whereby wherein wherever whether which
whichever while whither who whoever whole whom whose why will with within without wo won would wouldn y yes
yet you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_WORDS.split())
