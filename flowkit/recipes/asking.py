"""`ask`: a step that asks a model or an agent."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar, overload

from typing_extensions import Unpack

from flowkit.agent import Agent
from flowkit.errors import DefinitionError
from flowkit.graph import ModelStep
from flowkit.models.base import Model
from flowkit.recipes.model_steps import find_placeholders, make_request
from flowkit.recipes.ref import here, operand
from flowkit.recipes.tracing import CommonOptions, StepOptions, current_scope, place
from flowkit.tools.options import to_seconds

T = TypeVar("T")
F = TypeVar("F")


class _AskMaker:
    """`ask`, with the options it was given."""

    def __init__(self, options: StepOptions | None = None) -> None:
        self._options = options or StepOptions()

    def _make(self, target: object, prompt: str, output_type: Any, values: Mapping[str, object]) -> Any:
        scope, options = current_scope("ask"), self._options
        try:
            request = make_request(target, prompt, output_type, retries=options.retries)
        except DefinitionError as error:
            raise DefinitionError(f"{here()}: {error}") from None
        missing = [name for name in find_placeholders(prompt) if name not in values]
        if missing:
            raise DefinitionError(f"{here()}: the prompt names {missing[0]!r}, which isn't given; add {missing[0]}=…")
        scope.add_request(request)
        arguments = {name: operand(value) for name, value in values.items()}
        timeout_s = to_seconds(options.timeout)
        return place(
            scope,
            "ask",
            lambda name: ModelStep(name, arguments, request, name=request.name, timeout_s=timeout_s),
            options,
        )


class AskMaker(_AskMaker):
    """`ask`: a model or an agent as a step."""

    @overload
    def __call__(self, target: Agent[T], prompt: str, /, **values: object) -> T: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # no value is called output_type
        self, target: Model, prompt: str, /, *, output_type: type[T], **values: object
    ) -> T: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # no value is called output_type
        self, target: Model, prompt: str, /, *, output_type: object, **values: object
    ) -> Any: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # as before
        self, target: Model, prompt: str, /, **values: object
    ) -> str: ...
    def __call__(self, target: Any, prompt: str, /, *, output_type: Any = str, **values: object) -> Any:
        """Return the answer to `prompt`, in which `{name}` marks a value; values are sent as data, not as prompt text.

        >>> ask(model, "Summarise {note} in one sentence.", note=order.note)  # doctest: +SKIP
        """
        return self._make(target, prompt, output_type, values)

    @overload
    def options(self, *, optional: Literal[True], **common: Unpack[CommonOptions]) -> "FallbackAskMaker[None]": ...
    @overload
    def options(self, *, fallback: Callable[[], F], **common: Unpack[CommonOptions]) -> "FallbackAskMaker[F]": ...
    @overload
    def options(self, **common: Unpack[CommonOptions]) -> "AskMaker": ...
    def options(
        self,
        *,
        optional: bool = False,
        fallback: Callable[[], object] | None = None,
        **common: Unpack[CommonOptions],
    ) -> Any:
        """Return `ask` with the options of `step.options`; `retries` counts broken-off answers."""
        made = StepOptions.make(common, optional=optional, fallback=fallback)
        return FallbackAskMaker[Any](made) if made.has_stand_in else AskMaker(made)


class FallbackAskMaker(_AskMaker, Generic[F]):
    """An `ask` with a fallback value of type `F` for failures."""

    @overload
    def __call__(self, target: Agent[T], prompt: str, /, **values: object) -> T | F: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # no value is called output_type
        self, target: Model, prompt: str, /, *, output_type: type[T], **values: object
    ) -> T | F: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # no value is called output_type
        self, target: Model, prompt: str, /, *, output_type: object, **values: object
    ) -> Any: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # as before
        self, target: Model, prompt: str, /, **values: object
    ) -> str | F: ...
    def __call__(self, target: Any, prompt: str, /, *, output_type: Any = str, **values: object) -> Any:
        """Return the answer, or its fallback."""
        return self._make(target, prompt, output_type, values)


ask = AskMaker()
"""Makes a step that asks; `ask.options(…)` makes one with options."""
