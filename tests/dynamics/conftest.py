import pytest

from tests.dynamics.models import SIZES, make_model


@pytest.fixture(params=SIZES, ids=lambda s: "b{}t{}h{}w{}c{}k{}n{}".format(*s))
def sized(request):
    """Model, variables and features of one size."""
    return make_model(request.param)
