"""A Flower app of local training: scikit-learn's digits on SuperNodes of which some are faulty."""
