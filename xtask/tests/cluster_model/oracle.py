# For each line of the file that is named, a JSON document: what botocore's
# validator says of it, and what the model's patterns, enums and maxima say, which
# that validator leaves to the service. Prints a line for each: [[kind, pointer]].
import json
import re
import sys
import unicodedata

import botocore.session
from botocore.validate import ParamValidator

KINDS = {
    "missing required field": "Required",
    "empty input": "Required",
    "more than one input": "Required",
    "unknown field": "UnknownKey",
    "invalid type": "Type",
    "invalid range": "Range",
    "invalid length": "Range",
}




def pointer(name):
    name = re.sub(r" \(key: (.*)\)$", r".\1", name)
    return re.sub(r"\[(\d+)\]", r".\1", name).replace(".", "/")


def matches(pattern, text):
    if r"\p{L}" in pattern:
        return all(unicodedata.category(c)[0] in "LZN" or c in "_.:/=+-@" for c in text)
    # A text that is too long is out of range, which is said once.
    pattern = pattern.replace("(?=.{1,255}$)", "")
    return re.fullmatch(pattern, text) is not None


def walk(shape, value, at, found):
    kind, about = shape.type_name, shape.metadata
    size = None
    if kind == "structure" and isinstance(value, dict):
        for key, member in value.items():
            if key in shape.members:
                walk(shape.members[key], member, f"{at}/{key}", found)
    elif kind == "list" and isinstance(value, list):
        size = len(value)
        for index, member in enumerate(value):
            walk(shape.member, member, f"{at}/{index}", found)
    elif kind == "map" and isinstance(value, dict):
        size = len(value)
        for key, member in value.items():
            walk(shape.key, key, f"{at}/{key}", found)
            walk(shape.value, member, f"{at}/{key}", found)
    elif kind == "string" and isinstance(value, str):
        if "enum" in about:
            if value not in about["enum"]:
                found.add(("Choice", at))
            return
        size = len(value)
        if "pattern" in about and not matches(about["pattern"], value):
            found.add(("Pattern", at))
    elif kind == "integer" and isinstance(value, bool):
        # A bool is an int in Python, and not in JSON.
        found.add(("Type", at))
        return
    elif kind == "integer" and isinstance(value, int):
        size = value
    if size is not None and size > about.get("max", size):
        found.add(("Range", at))


def judge(shape, document):
    found = set()
    for reason, name, more in ParamValidator().validate(document, shape)._errors:
        at = pointer(name)
        if reason == "unknown field":
            at = f"{at}/{more['unknown_param']}"
        found.add((KINDS[reason], at))
    walk(shape, document, "", found)
    # A bool that is out of bounds as an int.
    typed = {at for kind, at in found if kind == "Type"}
    return sorted(it for it in found if it[0] != "Range" or it[1] not in typed)


model = botocore.session.get_session().get_service_model("sagemaker")
shape = model.operation_model("CreateCluster").input_shape
with open(sys.argv[1]) as documents:
    for line in documents:
        print(json.dumps(judge(shape, json.loads(line))))
