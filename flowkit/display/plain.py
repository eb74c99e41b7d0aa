"""A run in a pipe: the answer as plain text on one stream, everything about it on the other."""

from typing import TextIO

from flowkit.display.lines import MARKS, say_call, say_result, say_state
from flowkit.display.transcript import ASKED_AGAIN, CALL_ENDS, CallBlock, TextBlock, Transcript
from flowkit.display.words import clean
from flowkit.events import Event, TurnStarted
from flowkit.graph import Graph

RESULT_LIMIT = 160


class PlainDisplay:
    """Writes text as it comes to `answer`, and a line for each call that has ended to `notes`.

    Thinking isn't written: in a pipe it can't be distinguished from the answer.
    """

    def __init__(self, answer: TextIO, notes: TextIO, *, graph: Graph | None = None) -> None:
        self.transcript = Transcript.of_graph(graph)
        self._answer = answer
        self._notes = notes
        self._is_mid_line = False

    def show(self, event: Event) -> None:
        """Take an event in and write what it says."""
        block = self.transcript.apply(event)
        if isinstance(block, CallBlock) and not block.is_open and event.type in CALL_ENDS:
            self._write_call(block)
        elif isinstance(block, TextBlock) and not block.is_thinking and block.call is None:
            self._write_text(str(getattr(event, "text", "")))
        elif isinstance(event, TurnStarted) and event.attempt > 1:
            self.end()
            self._notes.write(f"{ASKED_AGAIN}\n")

    def end(self) -> None:
        """Complete the answer's last line."""
        if self._is_mid_line:
            self._answer.write("\n")
            self._is_mid_line = False
        self._answer.flush()

    def _write_text(self, text: str) -> None:
        text = clean(text)
        if text:
            self._answer.write(text)
            self._answer.flush()
            self._is_mid_line = not text.endswith("\n")

    def _write_call(self, block: CallBlock) -> None:
        self.end()
        indent = "  " * block.depth
        self._notes.write(f"{indent}{MARKS[block.state]} {say_call(block)}  {say_state(block, self.transcript.now)}\n")
        result = say_result(block, RESULT_LIMIT)
        if result:
            self._notes.write(f"{indent}  {result}\n")
        self._notes.flush()
