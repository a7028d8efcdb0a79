"""Methods to compare with, each behind the interface of `sam_uniref.eval.methods`."""
