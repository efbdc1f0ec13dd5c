"""What the comparison with the real CernVM-FS needs."""

from __future__ import annotations

import pytest
from support.reference import ReferenceRepositories


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> ReferenceRepositories:
    return ReferenceRepositories(tmp_path_factory.mktemp("references"))
