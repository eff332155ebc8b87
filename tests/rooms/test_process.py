"""What processes ask of their system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

LOOKED_AT = """
import resource, sys
from byzopt.process import keep_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "keep" in sys.argv:
    keep_memory()
size = 64 << 20
for _ in range(2):
    bytearray(size)
before = faults()
bytearray(size)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has this switch")
def test_kept_memory_is_not_mapped_anew():
    def found(*words: str) -> int:
        done = subprocess.run([sys.executable, "-c", LOOKED_AT, *words], capture_output=True, check=True)
        return int(done.stdout)

    pages = (64 << 20) // (2 << 20)  # at the least, were they huge
    assert found() >= pages
    assert found("keep") < pages // 4
