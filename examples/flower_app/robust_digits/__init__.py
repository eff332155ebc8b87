"""A Flower app: scikit-learn's digits on SuperNodes of which some lie."""
