"""What becomes of normalization layers in federated training. Names load when first used."""

from typing import TYPE_CHECKING

from data_tools.lazy import lazy_names

if TYPE_CHECKING:
    from federated.policy.fates import FATES, NORM_ROLES, Fate, NormRole, Phase, Role
    from federated.policy.local_state import LocalState, LocalStateError
    from federated.policy.manifest import Entry, Expected, Manifest, State
    from federated.policy.moments import Counted, client_statistics, merge_statistics, read_counts
    from federated.policy.moved import ManifestError
    from federated.policy.norm_policy import (
        POLICIES,
        POLICY_HELP,
        NormPolicy,
        parse_policy,
    )
    from federated.policy.roles import NormTensor, norm_tensors, register_norm
    from federated.policy.start import START_RULES, between_clients, start_local

_HOMES = {
    "Counted": "moments",
    "Entry": "manifest",
    "Expected": "manifest",
    "FATES": "fates",
    "Fate": "fates",
    "LocalState": "local_state",
    "LocalStateError": "local_state",
    "Manifest": "manifest",
    "ManifestError": "moved",
    "NORM_ROLES": "fates",
    "NormPolicy": "norm_policy",
    "NormRole": "fates",
    "NormTensor": "roles",
    "POLICIES": "norm_policy",
    "POLICY_HELP": "norm_policy",
    "Phase": "fates",
    "Role": "fates",
    "START_RULES": "start",
    "State": "manifest",
    "between_clients": "start",
    "client_statistics": "moments",
    "merge_statistics": "moments",
    "norm_tensors": "roles",
    "parse_policy": "norm_policy",
    "read_counts": "moments",
    "register_norm": "roles",
    "start_local": "start",
}

__all__ = [
    "FATES",
    "NORM_ROLES",
    "POLICIES",
    "POLICY_HELP",
    "START_RULES",
    "Counted",
    "Entry",
    "Expected",
    "Fate",
    "LocalState",
    "LocalStateError",
    "Manifest",
    "ManifestError",
    "NormPolicy",
    "NormRole",
    "NormTensor",
    "Phase",
    "Role",
    "State",
    "between_clients",
    "client_statistics",
    "merge_statistics",
    "norm_tensors",
    "parse_policy",
    "read_counts",
    "register_norm",
    "start_local",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
