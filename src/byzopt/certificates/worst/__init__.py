"""The worst rows for a rule, honest and faulty ones searched together, and the ledger of those that are
known."""

from byzopt.certificates.worst.certificate import WorstRows, read_certificate
from byzopt.certificates.worst.figures import FORMS, Form, figures
from byzopt.certificates.worst.ledger import add_to_ledger, known_worst, read_ledger
from byzopt.certificates.worst.turned import turned
from byzopt.certificates.worst.worst import (
    RATIO,
    RowsReport,
    exceeded_forms,
    proved_bounds,
    usual_budget,
    worst_rows,
)

__all__ = [
    "FORMS",
    "RATIO",
    "Form",
    "RowsReport",
    "WorstRows",
    "add_to_ledger",
    "exceeded_forms",
    "figures",
    "known_worst",
    "proved_bounds",
    "read_certificate",
    "read_ledger",
    "turned",
    "usual_budget",
    "worst_rows",
]
