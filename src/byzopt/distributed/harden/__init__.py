"""`harden`: gradients are made robust where PyTorch reduces them, and everything behind stays the script's.

    model = DistributedDataParallel(model)
    guard = harden(model, "nnm >> rfa", f=1)

One wrapper, one file (`ddp`), listed in `entry.WRAPPERS`. It deals the columns of all ranks' gradients to the
ranks, as the wrapper lets it, and drives a `Round`:

    done = guard.begin(d)                        # at the first gradient of a backward pass
    done.saw(gradient)                           # this rank's own, in pieces as they come
    done.add(block, first)                       # [n, b], as columns arrive: partial products, or answers
    done.decide()                                # after the last: one message, one set of weights
    for piece in done.answers(): ...             # this rank's columns, to be sent, or to stay where it is
    guard.finished(done, pieces)                 # counters, memory, watch; or guard.failed(done, error)

What they share: `settings` (what one says), `agreement` (one error on all ranks), `transfer` (columns on
their way), `forms` (what a rule needs of whole rows), `momentum`, `buffers`, `scaling`.
"""

from byzopt.distributed.harden.entry import harden
from byzopt.distributed.harden.guard import Guard

__all__ = ["Guard", "harden"]
