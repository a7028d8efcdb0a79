"""The commands of ``sam-uniref``, a file a command; `sam_uniref.cli` lists them.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""
