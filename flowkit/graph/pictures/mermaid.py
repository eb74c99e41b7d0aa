"""A picture as a Mermaid flowchart, which GitHub and many editors draw."""

from collections.abc import Iterator

from flowkit.graph.pictures.picture import AFTER, Box, Picture

STYLES = {
    "good": "fill:#dafbe1,stroke:#1a7f37,color:#1f2328",
    "cached": "fill:#ddf4ff,stroke:#0969da,color:#1f2328",
    "bad": "fill:#ffebe9,stroke:#cf222e,color:#1f2328",
    "stopped": "fill:#fff8c5,stroke:#9a6700,color:#1f2328",
    "left": "fill:#f6f8fa,stroke:#8c959f,color:#59636e,stroke-dasharray:4 3",
}


def write_mermaid(picture: Picture) -> str:
    """Write a flowchart from top to bottom; after a run, colours show each node's outcome."""
    numbers = {box.id: f"n{number}" for number, box in enumerate(picture.all_boxes())}
    lines = ["flowchart TD"]
    for box in picture.boxes:
        lines += _write_box(box, numbers, "  ")
    for edge in picture.edges:
        arrow = "-.->" if edge.labels == (AFTER,) else "==>" if edge.is_critical else "-->"
        label = f'|"{"<br/>".join(map(_escape, edge.shown))}"|' if edge.labels else ""
        lines.append(f"  {numbers[edge.first]} {arrow}{label} {numbers[edge.second]}")
    for tone, style in STYLES.items():
        members = [numbers[box.id] for box in picture.all_boxes() if box.tone == tone]
        if members:
            lines += [f"  classDef {tone} {style}", f"  class {','.join(members)} {tone}"]
    return "\n".join(lines) + "\n"


def _write_box(box: Box, numbers: dict[str, str], indent: str) -> Iterator[str]:
    if box.inner:
        # A title of two lines would run into what stands below it.
        yield f'{indent}subgraph {numbers[box.id]}["{" · ".join(map(_escape, box.lines))}"]'
        for inner in box.inner:
            yield from _write_box(inner, numbers, indent + "  ")
        yield f"{indent}end"
    else:
        opened, closed = ("{{", "}}") if box.kind == "control" else ("([", "])") if box.kind == "model" else ("[", "]")
        yield f'{indent}{numbers[box.id]}{opened}"{"<br/>".join(map(_escape, box.lines))}"{closed}'


def _escape(text: str) -> str:
    # Inside quotes Mermaid reads HTML, and entities with a hash and no ampersand; a backtick would begin Markdown.
    return "".join(f"#{ord(character)};" if character in '"#&<>`\\' else character for character in text)
