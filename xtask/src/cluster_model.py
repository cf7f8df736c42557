# Prints CreateCluster's input as botocore's service model has it, as JSON:
# {"version": ..., "shapes": [[name, shape], ...]}, each shape after those it
# refers to. `cargo xtask cluster-model` turns that into Rust.
import json
import sys

import botocore
import botocore.session

# Patterns with look-around or shorthands that the regex crate reads in another
# way, and what accepts the same texts within the shape's limits.
SAME = {
    r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+":
        r"arn:aws[a-z\-]*:iam::[0-9]{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
    # Any characters.
    r"[\S\s]+": r"(?s:.)+",
    # Not only blanks.
    r"(?!\s*$).+": r".*[^ \t\n\x0B\x0C\r].*",
    # The length is limited to 255 anyway.
    r"(?=.{1,255}$)([a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)*":
        r"([a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)*",
}

shapes = {}


def pattern(text):
    if text in SAME:
        return SAME[text]
    for unknown in ("(?", r"\d", r"\s", r"\S", r"\w", r"\b", "&&", "~~", "--"):
        if unknown in text:
            sys.exit(f"the pattern {text} has {unknown}: give its equal in cluster_model.py")
    return text


def walk(shape):
    if shape.name in shapes:
        return
    kind, about = shape.type_name, shape.metadata
    limits = [about.get("min", 0), about.get("max")]
    if kind == "structure":
        for member in shape.members.values():
            walk(member)
        entry = {
            "union": bool(shape.is_tagged_union),
            "members": [[name, name in shape.required_members, member.name]
                        for name, member in shape.members.items()],
        }
    elif kind == "list":
        walk(shape.member)
        entry = {"of": shape.member.name}
    elif kind == "map":
        walk(shape.key)
        walk(shape.value)
        entry = {"key": shape.key.name, "value": shape.value.name}
    elif kind == "string":
        entry = {"pattern": pattern(about.get("pattern", "")), "values": about.get("enum", [])}
    elif kind in ("integer", "boolean", "timestamp"):
        entry = {}
    else:
        sys.exit(f"{shape.name} is a {kind}, which the table cannot express")
    shapes[shape.name] = {"kind": kind, "limits": limits, **entry}


service = botocore.session.get_session().get_service_model("sagemaker")
walk(service.operation_model("CreateCluster").input_shape)
print(json.dumps({"version": botocore.__version__, "shapes": list(shapes.items())}))
