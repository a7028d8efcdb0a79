"""The four tasks: what a method is asked, and how its answers are scored, on the cases of any data set."""

from sam_uniref.eval.protocols.base import MaskFile, TaskProtocol
from sam_uniref.eval.protocols.few_shot import FewShot, FewShotScore
from sam_uniref.eval.protocols.merged_sentences import MATCHES, MergedSentences
from sam_uniref.eval.protocols.referring import Referring, SentenceScore
from sam_uniref.eval.protocols.tracks import FRAME_RULES, Tracks, TrackScore
from sam_uniref.eval.protocols.video_objects import VideoObjects
from sam_uniref.eval.protocols.video_sentences import VideoSentences

__all__ = [
    "FRAME_RULES",
    "MATCHES",
    "FewShot",
    "FewShotScore",
    "MaskFile",
    "MergedSentences",
    "Referring",
    "SentenceScore",
    "TaskProtocol",
    "TrackScore",
    "Tracks",
    "VideoObjects",
    "VideoSentences",
]
