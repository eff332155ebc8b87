"""Arguments of Flower's FedAvg family that have another name here: refused, with what to write."""

from __future__ import annotations

from collections.abc import Collection

from byzopt.errors import InvalidInput, unknown

_SERVER = "Write server=ServerAdam(lr=eta, beta_1=..., beta_2=..., tau=...), or ServerYogi or ServerAdagrad"
_FAIR = "There is no q-fair weighting: weights that follow reported losses are what a liar would choose"
_COUNT = "Write f="
ELSEWHERE = {
    "eta": _SERVER,
    "beta_1": _SERVER,
    "beta_2": _SERVER,
    "tau": _SERVER,
    "eta_l": "Leave it out: the clients' rate is theirs, or in the `train_config` of `start`",
    "num_malicious_nodes": _COUNT,
    "num_malicious_clients": _COUNT,
    "num_nodes_to_select": "Write rule='multi_krum', and see its `m`",
    "beta": "Write rule='trimmed_mean' and f=, the number trimmed at each end",
    "q": _FAIR,
    "client_learning_rate": _FAIR,
    "lr": "Write server_learning_rate=",
    "sample": "Write fraction_train= or min_train_nodes=",
    "step": "Write server=",
    "worker": "Write momentum= or method=",
    "initial_arrays": "Give it to `start`",
    "initial_parameters": "Give `initial_arrays` to `start`",
    "fraction_fit": "Write fraction_train=",
    "min_fit_clients": "Write min_train_nodes=",
    "min_evaluate_clients": "Write min_evaluate_nodes=",
    "min_available_clients": "Write min_available_nodes=",
    "fit_metrics_aggregation_fn": "Write train_metrics_aggr_fn=",
    "evaluate_metrics_aggregation_fn": "Write evaluate_metrics_aggr_fn=",
    "evaluate_fn": "Give it to `start`",
    "evaluate": "Write fraction_evaluate=1.0, or 0.0",
    "on_fit_config_fn": "Give `train_config` to `start`",
    "accept_failures": "Missing and failed replies count against f, and are survived while they are no more",
}


def refuse(names: Collection[str], known: Collection[str]) -> None:
    """Errors: `InvalidInput` if there are `names`, with what to write in their place."""
    for name in names:
        if name in ELSEWHERE:
            what = "RobustFedAvg should be given arguments that it has"
            raise InvalidInput(f"{what}. Found {name!r}. {ELSEWHERE[name]}.")
        raise unknown("argument of RobustFedAvg", name, sorted(known))
