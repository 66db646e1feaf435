"""Quick and quiet: one thread a process, no deadlines on busy machines."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile("stepdpo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stepdpo")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The miniature's tokenizer: byte-level BPE, no beginning-of-text token."""
    import tiny

    return tiny.tokenizer()
