"""What rules compute with: Gram products, mixing, order statistics, solvers on n x n numbers."""
