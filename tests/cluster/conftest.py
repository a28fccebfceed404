import pytest

from tests.cluster import machines


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Machines with addresses of their own: machines.py says what they are."""
    if reason := machines.why_not():
        pytest.skip(reason)
    with machines.network(tmp_path_factory.mktemp("network")) as made:
        yield made
