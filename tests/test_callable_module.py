"""A verb's module is its function too."""

import inspect
import pickle
import sys
from types import ModuleType

import pytest

import seglens
from seglens.callable_module import make_callable

VERBS = ("demo", "evaluate", "explain", "judge", "report", "train")


@pytest.fixture
def double():
    """A module called ``double`` that holds a function of that name."""
    module = ModuleType("somewhere.double")
    exec("def double(number: int, *, plus: int = 0) -> int:\n    return 2 * number + plus", vars(module))
    sys.modules[module.__name__] = module
    make_callable(module.__name__)
    yield module
    del sys.modules[module.__name__]


def test_a_call_of_the_module_is_a_call_of_the_function(double):
    assert double(3, plus=1) == double.double(3, plus=1) == 7
    assert inspect.signature(double) == inspect.signature(double.double)
    with pytest.raises(TypeError, match="unexpected keyword argument 'minus'"):
        double(3, minus=1)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_module_and_function(name):
    verb = getattr(seglens, name)
    assert inspect.ismodule(verb)
    assert callable(verb)
    assert inspect.signature(verb) == inspect.signature(vars(verb)[name])
    assert getattr(seglens, name) is verb  # however often, and whatever was imported in between


def test_functions_of_a_verb_s_module_can_be_pickled():
    from seglens.evaluate import evaluate

    assert pickle.loads(pickle.dumps(evaluate)) is evaluate
