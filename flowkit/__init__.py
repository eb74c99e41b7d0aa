"""flowkit: typed Python functions as tools, run as one dependency graph while the model still streams.

Every public name is imported when it is first used, so that `import flowkit` stays quick.
"""

from importlib import import_module

_HOME = {
    "Agent": "agent",
    "AgentResult": "agent",
    "AnthropicModel": "models.anthropic",
    "Approve": "executor",
    "CONTEXT": "context",
    "Cache": "cache",
    "ConfigurationError": "errors",
    "Context": "context",
    "DefaultModel": "models.default",
    "DefinitionError": "errors",
    "Deny": "executor",
    "DiskCache": "cache",
    "FallbackModel": "models.routing",
    "File": "messages",
    "FlowkitError": "errors",
    "Graph": "graph",
    "Image": "messages",
    "InDoubt": "errors",
    "Journal": "journal",
    "Limits": "runs.limits",
    "MCPTools": "mcp",
    "Message": "messages",
    "mcp_app": "mcp",
    "ModelError": "errors",
    "Needs": "tools",
    "OpenAIModel": "models.openai",
    "Price": "models.pricing",
    "Recipe": "recipes",
    "RecipeResult": "recipes",
    "Recorder": "models.recording",
    "Ref": "recipes",
    "Reference": "references",
    "Replayer": "models.recording",
    "Router": "models.routing",
    "Run": "runs.run",
    "RunNotDone": "errors",
    "ScriptedModel": "models.scripted",
    "Text": "messages",
    "Timeout": "models.wire.settings",
    "Tool": "tools",
    "ToolArgumentsError": "errors",
    "ToolCall": "references",
    "ToolError": "errors",
    "Toolset": "tools.toolsets",
    "Usage": "messages",
    "ask": "recipes",
    "build": "recipes",
    "each": "recipes",
    "load_recipe": "recipes.files",
    "recipe": "recipes",
    "serve_app": "web.serving",
    "sse": "web.sse_response",
    "step": "recipes",
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
