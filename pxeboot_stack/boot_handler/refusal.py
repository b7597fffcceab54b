"""The one error of the boot handler: an answer that is not 200."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 (not an error of ours: an answer)
    """A request is answered with *status* and a plain sentence.

    :ivar status: the HTTP status, 400 or more. :ivar sentence: what is wrong, for the person on the console.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
