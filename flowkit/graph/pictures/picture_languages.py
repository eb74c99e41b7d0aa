"""A picture as text for other programs to draw: Mermaid, which GitHub and many editors read, and Graphviz."""

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
        # A title of two lines would overlap the text below it.
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


COLORS = {"good": "#dafbe1", "cached": "#ddf4ff", "bad": "#ffebe9", "stopped": "#fff8c5", "left": "#eaeef2"}


def write_dot(picture: Picture) -> str:
    """Write a digraph; an edge to a control ends at its frame."""
    lines = [
        "digraph flowkit {",
        "  compound=true;",
        '  graph [fontname="Helvetica", fontsize=11];',
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9, color="#57606a"];',
    ]
    first_leaf: dict[str, str] = {}

    def write(box: Box, indent: str) -> str:
        label = _quote("\n".join(box.lines))
        fill = f", fillcolor={_quote(COLORS[box.tone])}" if box.tone in COLORS else ""
        if not box.inner:
            lines.append(f"{indent}{_quote(box.id)} [label={label}{fill}];")
            first_leaf[box.id] = box.id
        else:
            lines.append(f"{indent}subgraph {_quote('cluster ' + box.id)} {{")
            lines.append(f'{indent}  label={label}; style="rounded{",dashed" if box.kind == "branch" else ""}";')
            leaves = [write(inner, indent + "  ") for inner in box.inner]
            first_leaf[box.id] = leaves[0]
            lines.append(f"{indent}}}")
        return first_leaf[box.id]

    for box in picture.boxes:
        write(box, "  ")
    for edge in picture.edges:
        options = [
            f"{word}={_quote('cluster ' + name)}"
            for word, name in (("ltail", edge.first), ("lhead", edge.second))
            if first_leaf[name] != name
        ]
        options += [f"label={_quote(chr(10).join(edge.shown))}"] if edge.labels else []
        options += ["style=dashed"] if edge.labels == (AFTER,) else []
        options += ["penwidth=2"] if edge.is_critical else []
        tail = f" [{', '.join(options)}]" if options else ""
        lines.append(f"  {_quote(first_leaf[edge.first])} -> {_quote(first_leaf[edge.second])}{tail};")
    return "\n".join([*lines, "}"]) + "\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
