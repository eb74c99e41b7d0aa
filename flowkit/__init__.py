"""flowkit: typed Python functions as tools, run as one dependency graph while the model still streams.

Every public name is imported when it is first used, so that `import flowkit` stays quick.
"""

from importlib import import_module
from logging import NullHandler, getLogger
from os import environ

_HOME = {
    "Agent": "agent",
    "AgentResult": "agent",
    "AnthropicModel": "models.anthropic",
    "Approve": "executor",
    "Audio": "media",
    "Budget": "runs.budgets",
    "CONTEXT": "context",
    "Cache": "cache",
    "CallDelta": "models.base",
    "CallDone": "models.base",
    "ConfigurationError": "errors",
    "Context": "context",
    "DefaultModel": "models.default",
    "DefinitionError": "errors",
    "Delta": "models.base",
    "Deny": "executor",
    "DiskCache": "cache",
    "RedisCache": "cache",
    "EndDelta": "models.base",
    "ErrorDelta": "models.base",
    "Executor": "executor",
    "FallbackModel": "models.routing",
    "File": "media",
    "FinishDelta": "models.base",
    "FlowkitError": "errors",
    "Graph": "graph",
    "GuardFailed": "errors",
    "GuardRefused": "errors",
    "Image": "media",
    "InDoubt": "errors",
    "Journal": "journal",
    "Limits": "runs.limits",
    "MCPTools": "mcp_client",
    "Message": "messages",
    "mcp_app": "mcp",
    "Model": "models.base",
    "ModelError": "errors",
    "ModelRequest": "models.base",
    "NamedTool": "models.base",
    "Needs": "tools",
    "OpenAIModel": "models.openai",
    "Outcome": "executor",
    "Pending": "runs.results",
    "Price": "models.pricing",
    "ProviderDelta": "models.base",
    "Recipe": "recipes",
    "RecipeResult": "recipes",
    "Recorder": "models.recording",
    "Ref": "recipes",
    "Reference": "references",
    "RefusalDelta": "models.base",
    "Refuse": "agent",
    "Replayer": "models.recording",
    "Router": "models.routing",
    "Run": "runs.run",
    "RunNotDone": "errors",
    "RunResult": "runs.results",
    "ScriptedModel": "models.scripted",
    "Text": "messages",
    "TextDelta": "models.base",
    "ThinkingDelta": "models.base",
    "Timeout": "models.wire.settings",
    "Tool": "tools",
    "ToolArgumentsError": "errors",
    "ToolCall": "references",
    "ToolError": "errors",
    "Toolset": "tools.toolsets",
    "Usage": "messages",
    "UsageDelta": "models.base",
    "Watch": "agent",
    "ask": "recipes",
    "build": "recipes",
    "drive": "queues",
    "each": "recipes",
    "load_recipe": "recipes.files",
    "recipe": "recipes",
    "run_graph": "executor",
    "serve_app": "web.serving",
    "sse": "web.sse_response",
    "step": "recipes",
    "submit": "queues",
    "tool": "tools",
    "when": "recipes",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]  # the stub beside this file names them
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'flowkit' has no attribute {name!r}") from None
    value = getattr(import_module(f"flowkit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]


# A library configures no logging; without this handler, Python would print warnings to stderr.
getLogger("flowkit").addHandler(NullHandler())

if environ.get("FLOWKIT_OTEL") == "1":
    import_module("flowkit.telemetry").instrument()
