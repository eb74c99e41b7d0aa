"""Recipes: multi-step work declared once, in Python or YAML, as one graph."""

from flowkit.recipes.decorator import (
    Recipe,
    RecipeResult,
    RecipeRun,
    Ref,
    ask,
    build,
    each,
    finally_,
    is_in,
    is_none,
    not_,
    recipe,
    step,
    when,
)

__all__ = [
    "Recipe",
    "RecipeResult",
    "RecipeRun",
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
