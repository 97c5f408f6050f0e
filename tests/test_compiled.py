"""Where the compiler fails, its function runs as it is, with one warning."""

import warnings

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError

from thalweg.compiled import compiled_or_eager


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), None), "backend='<lambda>' raised"),
        (InductorError(NameError("name 'x' is not defined"), None), "NameError: name 'x' is not defined"),  # a cached file is broken
    ],
    ids=["backend", "inductor"],
)
def test_a_compiler_that_fails_is_asked_once(error, reason, monkeypatch):
    asked = []

    def fail(*arguments):
        asked.append(arguments)
        raise error

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: fail)
    twice = compiled_or_eager(lambda x: 2 * x, "twice runs")
    with pytest.warns(UserWarning, match=rf"thalweg: twice runs uncompiled \({reason}"):
        assert twice(3) == 6
    with warnings.catch_warnings(record=True) as more:
        assert twice(4) == 8
    assert asked == [(3,)] and not more


def test_errors_of_the_function_itself_are_not_hidden(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    with pytest.raises(ZeroDivisionError):
        compiled_or_eager(lambda x: 1 / x, "it runs")(0)
