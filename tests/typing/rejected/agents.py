"""Mistakes in agents that a strict checker tells; each line with one ends in `# error`."""

from flowkit import Agent, ScriptedModel

model = ScriptedModel([])
Agent("gpt-4.1")  # error
Agent(model, output_type=3)  # error
Agent(model, attempt=2)  # error
counter = Agent(model, output_type=int | None)
text: str = counter.run_sync("Count.").output  # error
counter.run_sync("Count.", usr="c-17")  # error
