"""What a frozen image encoder makes of pictures, computed once and kept on disk.

```
CACHE/cache.json          which encoder, input size, levels and precision; everything in the folder is of that kind
CACHE/shards/*.features   features of some pictures, with their keys and checksums; whole or not there
```

A picture is known by what is on it: its key is a hash of its pixels as a model is shown them, after flip and crop. So
nothing has to be known of where it came from, and features can never be taken for another picture's.
"""

from sam_uniref.cache.description import CacheDescription
from sam_uniref.cache.features import FeatureCache, NotCachedError, open_cache
from sam_uniref.cache.layout import PRECISIONS, RecordLayout
from sam_uniref.cache.plan import WritingPlan, broken_shards, plan_writing
from sam_uniref.cache.shard import BrokenShardError
from sam_uniref.cache.writer import CacheWriter

__all__ = [
    "PRECISIONS",
    "BrokenShardError",
    "CacheDescription",
    "CacheWriter",
    "FeatureCache",
    "NotCachedError",
    "RecordLayout",
    "WritingPlan",
    "broken_shards",
    "open_cache",
    "plan_writing",
]
