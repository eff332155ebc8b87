"""Contract suites for parts of your own: what every rule, attack, task, method or compressor promises.

The checks are the ones that this library's own parts pass in its tests. Two lines test yours with pytest:

    from byzopt.testing import parametrize

    @parametrize(MyRule(f=2), MyAttack())
    def test_what_every_part_promises(check):
        check()

`verify(MyRule(f=2))` does the same without pytest, and returns what was checked and what was left out.
"""

from byzopt.testing.checks import BrokenPromise, Check, Verified
from byzopt.testing.suites import checks_of, left_out, parametrize, verify

__all__ = ["BrokenPromise", "Check", "Verified", "checks_of", "left_out", "parametrize", "verify"]
