"""An app for tests in a browser: an agent whose answer has a type, and a guard that refuses.

flowkit serve tests/web_typed.py
"""

from collections.abc import Sequence

from pydantic import BaseModel

from flowkit import Agent, Context, Message, Refuse
from flowkit.models.base import ModelRequest
from flowkit.models.scripted import Piece
from flowkit.testing import ScriptedModel


class Review(BaseModel):
    """What is thought of a product."""

    title: str
    stars: int
    reasons: list[str]


def answer(request: ModelRequest) -> Sequence[Piece]:
    """A review that takes its time in the middle."""
    return ['{"title": "A good tea set", ', 4.0, '"stars": 4, "reasons": ["warm", "round"]}']


def polite(messages: tuple[Message, ...], context: Context) -> Refuse | None:
    return Refuse("Please be polite.") if "idiot" in str(messages[-1]) else None


def open_data(database: str) -> str:
    """What `--data` of the browser's server gives."""
    return database


agent = Agent(ScriptedModel(answer), name="critic", output_type=Review, before_request=polite)
