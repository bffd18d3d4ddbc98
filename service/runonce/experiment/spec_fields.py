"""The kinds of values that fields of the resource have, and the form of each text, with words for it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from runonce.experiment.machine import MAX_PROCESSES, gpu_id, process_count

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ENTRY = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
ENV_PREFIX = r"^([A-Za-z_][A-Za-z0-9_.-]*)?$"
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL = r"^(([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"
PATH = r"^(/[^/:]+)+$"

# What a text of each form is, in words; an API server says the same, beside the value.
FORMS = {
    NAME: "a name is lower-case letters, digits and hyphens, and begins and ends with a letter or digit",
    SUBDOMAIN: "a name is lower-case letters, digits, - and ., and each part begins and ends with a letter or digit",
    ENTRY: "module:Class is meant, as digits.experiment:DigitsExperiment",
    ENV_NAME: "the name of a variable is letters, digits, _ . and -, and begins with a letter or _",
    ENV_PREFIX: "a prefix of variables is letters, digits, _ . and -, and begins with a letter or _",
    LABEL: "the name of a label or taint is meant, as disk or nvidia.com/gpu.product",
    LABEL_VALUE: "the value of a label is letters, digits, - _ and ., and begins and ends with a letter or digit",
    RESOURCE: "the name of a resource with its maker is meant, as nvidia.com/gpu",
    QUANTITY: "a quantity is meant, as 500m, 2 or 4Gi",
    PATH: "the whole path of a folder is meant, as /data, without colons or a slash at its end",
}


def _whole(value: Any) -> Any:
    """2.0 is 2, as for an API server."""
    return int(value) if type(value) is float and value.is_integer() else value


def _quantity(value: Any) -> Any:
    """2 is "2", as for an API server."""
    value = _whole(value)
    return str(value) if type(value) is int else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, BeforeValidator(lambda value: process_count(_whole(value))), Field(ge=0, le=MAX_PROCESSES)]
GpuId = Annotated[int, BeforeValidator(lambda value: gpu_id(_whole(value))), Field(ge=-1)]
Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Subdomain = Annotated[str, Field(pattern=SUBDOMAIN, max_length=253)]
Label = Annotated[str, Field(pattern=LABEL, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]
Path = Annotated[str, Field(pattern=PATH, max_length=253)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32), BeforeValidator(_quantity)]
Text = Annotated[str, Field(min_length=1, max_length=253)]
Env = Annotated[
    dict[Annotated[str, Field(pattern=ENV_NAME, max_length=256)], Annotated[str, Field(max_length=4096)]],
    Field(max_length=64),
]
