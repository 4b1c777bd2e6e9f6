import pytest
from mmengine.logging import MessageHub


@pytest.fixture(scope='module')
def no_runner(request):
    """A MessageHub that has seen no iteration: each call is one."""
    MessageHub.get_instance(request.module.__name__)
