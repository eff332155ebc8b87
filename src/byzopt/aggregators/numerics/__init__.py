"""Numbers behind the rules: Gram products, mixing, order statistics, solvers on n x n numbers."""
