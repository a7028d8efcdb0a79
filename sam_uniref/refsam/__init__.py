"""RefSAM (Li et al. 2023, arXiv 2307.00997): a SAM that is prompted by words, to compare with."""

from sam_uniref.refsam.config import RefSamConfig
from sam_uniref.refsam.model import RefSam
from sam_uniref.refsam.tracker import RefSamTracker

__all__ = ["RefSam", "RefSamConfig", "RefSamTracker"]
