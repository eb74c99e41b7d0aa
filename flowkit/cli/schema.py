"""`flowkit schema`: the JSON Schema of a recipe file, for editors and other checkers."""

from importlib.resources import files


def show() -> None:
    """Print the JSON Schema of a recipe file, which editors check against and complete from."""
    print(files("flowkit").joinpath("recipe.schema.json").read_text(encoding="utf-8").rstrip())
