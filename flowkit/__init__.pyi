"""The public names of flowkit, for type checkers; `__init__.py` imports them when they are first used."""

from flowkit.agent import Agent as Agent
from flowkit.agent import AgentResult as AgentResult
from flowkit.cache import Cache as Cache
from flowkit.cache import DiskCache as DiskCache
from flowkit.context import CONTEXT as CONTEXT
from flowkit.context import Context as Context
from flowkit.errors import ConfigurationError as ConfigurationError
from flowkit.errors import DefinitionError as DefinitionError
from flowkit.errors import FlowkitError as FlowkitError
from flowkit.errors import ModelError as ModelError
from flowkit.errors import RunNotDone as RunNotDone
from flowkit.errors import ToolArgumentsError as ToolArgumentsError
from flowkit.errors import ToolError as ToolError
from flowkit.executor import Approve as Approve
from flowkit.executor import Deny as Deny
from flowkit.graph import Graph as Graph
from flowkit.journal import Journal as Journal
from flowkit.messages import File as File
from flowkit.messages import Image as Image
from flowkit.messages import Message as Message
from flowkit.messages import Text as Text
from flowkit.messages import Usage as Usage
from flowkit.models.anthropic import AnthropicModel as AnthropicModel
from flowkit.models.default import DefaultModel as DefaultModel
from flowkit.models.openai import OpenAIModel as OpenAIModel
from flowkit.models.pricing import Price as Price
from flowkit.models.recording import Recorder as Recorder
from flowkit.models.recording import Replayer as Replayer
from flowkit.models.routing import FallbackModel as FallbackModel
from flowkit.models.routing import Router as Router
from flowkit.models.scripted import ScriptedModel as ScriptedModel
from flowkit.models.wire.settings import Timeout as Timeout
from flowkit.recipes import Recipe as Recipe
from flowkit.recipes import RecipeResult as RecipeResult
from flowkit.recipes import Ref as Ref
from flowkit.recipes import ask as ask
from flowkit.recipes import build as build
from flowkit.recipes import each as each
from flowkit.recipes import recipe as recipe
from flowkit.recipes import step as step
from flowkit.recipes import when as when
from flowkit.recipes.files import load_recipe as load_recipe
from flowkit.references import Reference as Reference
from flowkit.references import ToolCall as ToolCall
from flowkit.runs.limits import Limits as Limits
from flowkit.runs.run import Run as Run
from flowkit.tools import Needs as Needs
from flowkit.tools import Tool as Tool
from flowkit.tools import tool as tool
from flowkit.tools.toolsets import Toolset as Toolset
from flowkit.web.serving import serve_app as serve_app
from flowkit.web.sse_response import sse as sse

__all__: list[str]
__version__: str
