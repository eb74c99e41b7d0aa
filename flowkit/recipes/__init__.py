"""Recipes: multi-step work declared once, in Python or YAML, as one graph."""

from flowkit.recipes.asking import ask
from flowkit.recipes.decorator import Recipe, recipe
from flowkit.recipes.options import RecipeResult
from flowkit.recipes.ref import Ref, is_in, is_none, not_
from flowkit.recipes.steps import build, each, finally_, step, when

__all__ = [
    "Recipe",
    "RecipeResult",
    "Ref",
    "ask",
    "build",
    "each",
    "finally_",
    "is_in",
    "is_none",
    "not_",
    "recipe",
    "step",
    "when",
]
