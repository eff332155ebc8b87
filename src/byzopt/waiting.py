"""How idle OpenMP threads wait: they spin for some microseconds, which spares most wake-ups, and then sleep.

Threads that spin for long make a machine with other work several times slower; threads that sleep at once
make training on an idle one twice as slow. Read when torch is loaded, so it has to be set before.
"""

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
