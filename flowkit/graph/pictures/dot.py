"""A picture in Graphviz's language."""

from flowkit.graph.pictures.picture import AFTER, Box, Picture

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
