"""`mlpkern.use_backend`: as a statement, around a block and around a function."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

import pytest
import torch

import mlpkern
from mlpkern import use_backend
from mlpkern.registry import select

X = torch.randn(2, 3)


def chosen() -> str:
    return select("linear_tanh", X).__name__.split(".")[1]


@pytest.fixture(autouse=True)
def none_named(monkeypatch):
    """A backend that a test names is named no longer after it."""
    monkeypatch.delenv("MLPKERN_BACKEND", raising=False)
    yield
    use_backend(None)


AUTOMATIC = chosen()
OTHER = pytest.mark.skipif(AUTOMATIC == "reference", reason="no second backend")


@OTHER
def test_a_statement_acts_until_it_is_taken_back():
    use_backend("reference")
    assert chosen() == "reference"
    assert "named by use_backend" in mlpkern.explain("linear_tanh", X, X)
    use_backend("cpu")
    assert chosen() == "cpu"
    use_backend("reference")
    use_backend(None)
    assert chosen() == AUTOMATIC


@pytest.mark.parametrize("name", ["gpu", "", "Reference", 3])
def test_a_name_that_does_not_exist_raises_at_the_call_and_changes_nothing(name):
    use_backend("reference")
    with pytest.raises(ValueError, match=r"^use_backend: backend must be one of cpu, "):
        use_backend(name)
    assert chosen() == "reference"


@OTHER
def test_a_statement_within_a_block_ends_with_it():
    with use_backend("reference"):
        use_backend("cpu")
        assert chosen() == "cpu"
        with use_backend(None):
            assert chosen() == AUTOMATIC
        assert chosen() == "cpu"
    assert chosen() == AUTOMATIC
    use_backend("reference")
    with use_backend("cpu"):
        assert chosen() == "cpu"
    assert chosen() == "reference"


@OTHER
def test_an_object_is_entered_again_and_again():
    kept = use_backend("reference")
    assert chosen() == "reference"  # named by the statement that made it
    with kept:
        with kept:
            assert chosen() == "reference"
        assert chosen() == "reference"
        with use_backend("cpu"), kept, use_backend("cpu"):
            assert chosen() == "cpu"
        assert chosen() == "reference"
    assert chosen() == AUTOMATIC
    with kept, pytest.raises(KeyError), kept:
        raise KeyError
    assert chosen() == AUTOMATIC


def test_a_block_that_another_does_not_end_in_order():
    first, second = use_backend("reference"), use_backend("reference")
    with ExitStack() as stack:
        stack.enter_context(second)
        first.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="must end in the thread where it began"):
        first.__exit__(None, None, None)


@OTHER
def test_a_decorator_changes_the_function_alone():
    @use_backend("reference")
    def function():
        return chosen()

    @use_backend("cpu")
    @use_backend("reference")
    def twice():
        return chosen()

    kept = use_backend("reference")
    one, other = kept(chosen), kept(chosen)
    assert chosen() == AUTOMATIC
    for _ in range(2):
        assert (function(), twice(), one(), other()) == ("reference",) * 4
        assert chosen() == AUTOMATIC
    with use_backend("cpu"):
        assert function() == "reference"
        assert chosen() == "cpu"

    @use_backend("reference")
    def recursive(depth):
        return recursive(depth - 1) if depth else chosen()

    assert (recursive(3), chosen()) == ("reference", AUTOMATIC)
    assert recursive.__name__ == "recursive"


@OTHER
def test_an_async_function_runs_on_the_backend_to_its_end():
    @use_backend("reference")
    async def other():
        await asyncio.sleep(0)
        return chosen()

    async def main():
        seen = await asyncio.gather(other(), plain(), other(), statement(), inherits())
        return seen, chosen()

    async def plain():
        await asyncio.sleep(0)
        return chosen()

    async def statement():
        use_backend("reference")
        await asyncio.sleep(0)
        with use_backend("cpu"):
            await asyncio.sleep(0)
        return chosen()

    async def inherits():
        use_backend("reference")
        return await asyncio.create_task(plain())

    seen, after = asyncio.run(main())
    assert seen == ["reference", AUTOMATIC, "reference", "reference", "reference"]
    assert after == AUTOMATIC


def test_what_cannot_be_decorated_is_refused_and_leaves_nothing():
    def generator():
        yield 1

    for function, message in ((generator, "generator function"), (int, "got int"), (3, "got int")):
        with pytest.raises(TypeError, match=message):
            use_backend("reference")(function)
        assert chosen() == AUTOMATIC


@OTHER
def test_a_thread_begins_without_a_choice_and_keeps_its_own():
    kept = use_backend("reference")
    seen = []

    def work():
        seen.append(chosen())
        with kept:
            seen.append(chosen())
        seen.append(chosen())
        use_backend("reference")
        seen.append(chosen())

    with kept:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert chosen() == "reference"
    assert seen == [AUTOMATIC, "reference", AUTOMATIC, "reference"]
    assert chosen() == AUTOMATIC
