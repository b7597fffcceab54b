from __future__ import annotations

import itertools

import pytest

from pxeboot_stack.boot_handler import moment


def test_outside_of_a_moment_everybody_looks() -> None:
    numbers = itertools.count()
    assert [moment.once("key", numbers.__next__) for _ in range(3)] == [0, 1, 2]


def test_in_a_moment_the_first_looks_and_the_next_one_is_a_new_one() -> None:
    numbers = itertools.count()
    assert (moment.begin(), moment.begin()) == (True, False)
    assert [moment.once(key, numbers.__next__) for key in ("a", "a", "b", "a")] == [0, 0, 1, 0]
    moment.end()
    assert moment.begin()
    assert moment.once("a", numbers.__next__) == 2
    moment.end()


def test_what_a_look_raises_is_not_kept() -> None:
    moment.begin()
    with pytest.raises(ZeroDivisionError):
        moment.once("key", lambda: 1 // 0)
    assert moment.once("key", lambda: 1) == 1
    moment.end()
