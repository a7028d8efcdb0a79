"""Published numbers that stand beside ours: copied, not measured here."""

from __future__ import annotations

TABLE_8 = """\
| method (published, UniRef++ Table 8; not measured here) | RefCOCO val oIoU / mIoU | FSS-1000 1-shot / 5-shot | \
Ref-YouTube-VOS J&F | Ref-DAVIS17 J&F | YouTube-VOS 18 G | YouTube-VOS 19 G | DAVIS-2017 J&F |
|---|---|---|---|---|---|---|---|
| ReferSAM | 64.6 / 71.1 | | | | | | |
| PerSAM | | 81.6 / - | | | | | |
| PerSAM-F | | 86.3 / - | | | | | |
| RefSAM (its first version; its later one states 67.6 and 71.9) | | | 55.1 | 66.1 | | | |
| SAM-PT | | | | | 67.5 | | 76.6 |
| SAM ViT-H + UniRef, one set of weights | 65.9 / 70.4 | 77.8 / 84.2 | 52.4 | 61.2 | 73.4 | 72.8 | 78.4 |
"""
"""In percent, arXiv 2312.15715; the other methods were fine-tuned on each data set."""
