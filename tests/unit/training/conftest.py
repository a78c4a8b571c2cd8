"""What stages are trained on."""

from __future__ import annotations

import pytest
from helpers.tiny_training import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))
