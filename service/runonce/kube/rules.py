"""What `experiment.spec_checks` checks beside its fields, as rules of the API server (CEL), in the same words. Pure.

A rule stands at a model of the spec or at one of its fields. What no rule can say, since the server does not look into
`params` and `hashAs`, the controller says: NOT_IN_RULES lists it.
"""

from __future__ import annotations

from dataclasses import dataclass

from runonce.experiment.contract import TUNABLE
from runonce.experiment.key import MODES
from runonce.experiment.machine import MAX_PROCESSES
from runonce.experiment.spec_checks import OWN_FOLDERS, OWN_VOLUMES

NOT_IN_RULES = (
    "the forms, the size and the depth of params and hashAs; entries that were null",
    "the names in hashExclude, hashAs and paramsOnlyIn",
    "the size of the whole spec, and characters that no variable can hold",
    "profiles and stores that the cluster does not have",
    "a code version that is missing",
    "how many of more than 512 ids of GPUs differ",
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """at: name of the model, or `Model.field`. check: true where all is well. message: a text, or where it is CEL
    itself (`computed`) an expression for one. field: the path below `at` that the message is about, as `.gpuIds`.
    """

    at: str
    check: str
    message: str
    computed: bool = False
    field: str = ""

    def to_json(self) -> dict[str, str]:
        out = {"rule": self.check, "messageExpression" if self.computed else "message": self.message}
        return out | ({"fieldPath": self.field} if self.field else {})


# To tell ids apart takes time that grows with the square of their number, and the server bounds it: more than these are
# the controller's to judge.
_MANY = 512

# Different ids of devices that have a process.
_USED = (
    "(has(self.nprocessesPerDevice) ? "
    "self.nprocessesPerDevice.transformList(i, n, n > 0, self.gpuIds[i]) : self.gpuIds).distinct().size()"
)
_N = "(has(self.nprocesses) ? self.nprocesses : self.nprocessesPerDevice.sum())"
_ONE_COUNT = "has(self.nprocesses) != has(self.nprocessesPerDevice)"
_ON_GPUS = (
    f"has(self.gpuIds) && self.gpuIds.size() > 0 && self.gpuIds.size() <= {_MANY} && self.gpuIds.all(id, id >= 0)"
)
_COUNTS_FIT = f"{_ONE_COUNT} && (has(self.nprocesses) || self.gpuIds.size() == self.nprocessesPerDevice.size())"
_NOT_MIXED = "!has(self.gpuIds) || self.gpuIds.all(id, id >= 0) || self.gpuIds.all(id, id == -1)"

_BLOCK = (
    Rule(
        at="MachineBlock",
        check=_ONE_COUNT,
        message="(has(self.nprocesses) ? 'and nprocessesPerDevice are both given.' : 'is missing.') + "
        "' Give nprocesses, or nprocessesPerDevice with one count for each of gpuIds.'",
        computed=True,
        field=".nprocesses",
    ),
    Rule(
        at="MachineBlock",
        check="!has(self.nprocessesPerDevice) || self.nprocessesPerDevice.size() > 0",
        message="is empty. Give one count for each device, or nprocesses: 0.",
        field=".nprocessesPerDevice",
    ),
    Rule(
        at="MachineBlock",
        check="!has(self.nprocessesPerDevice) || !has(self.gpuIds) || "
        "self.gpuIds.size() in [0, self.nprocessesPerDevice.size()]",
        message="'has %d counts, and gpuIds has %d ids. Give one count for each id, or nprocesses as one number.'"
        ".format([self.nprocessesPerDevice.size(), self.gpuIds.size()])",
        computed=True,
        field=".nprocessesPerDevice",
    ),
    Rule(
        at="MachineBlock",
        check=f"!has(self.nprocessesPerDevice) || self.nprocessesPerDevice.sum() <= {MAX_PROCESSES}",
        message=f"'add up to %d processes; one Job has at most {MAX_PROCESSES}. Ask for fewer.'"
        ".format([self.nprocessesPerDevice.sum()])",
        computed=True,
        field=".nprocessesPerDevice",
    ),
    Rule(
        at="MachineBlock",
        check=_NOT_MIXED,
        message="the CPU (-1) and GPUs in one Job, whose processes are all alike. "
        "Give ids of GPUs alone, or [] for the CPU.",
        field=".gpuIds",
    ),
    Rule(
        at="MachineBlock",
        check=f"!has(self.nprocesses) || self.nprocesses == 0 || !({_ON_GPUS}) || "
        "[self.gpuIds.distinct().size()].all(d, d <= self.nprocesses || d % self.nprocesses == 0)",
        message="[self.gpuIds.distinct().size()].map(d, 'has %d different ids for %d processes, and all processes of a "
        "Job get equally many GPUs. Give %d or %d ids, or a number of processes that divides %d.'.format([d, "
        "self.nprocesses, d / self.nprocesses * self.nprocesses, (d / self.nprocesses + 1) * self.nprocesses, d]))[0]",
        computed=True,
        field=".gpuIds",
    ),
)


def _too_few(mode: str) -> Rule:
    """Whole GPUs cannot be shared; a profile may call a GPU something that can, which only the controller knows."""
    block = f"self.machineParams.{mode}"

    def of(text: str) -> str:
        return text.replace("self.", f"{block}.")

    coupled = f"(has({block}.coupled) ? {block}.coupled : {'true' if mode == 'train' else 'false'})"
    shared = rf"(has({block}.gpuResource) && {block}.gpuResource.matches(r'\.shared$|/mig-'))"
    applies = f"!has(self.profile) && has({block}) && {coupled} && !{shared}"
    sound = f"{of(_ON_GPUS)} && {of(_COUNTS_FIT)} && {of(_N)} > 0"
    return Rule(
        at="ExperimentSpec",
        check=f"!({applies} && {sound}) || {of(_USED)} >= {of(_N)}",
        message="'has %d different ids for %d coupled processes, which must all run at once, and whole GPUs cannot be "
        "shared between pods. Give %d ids; or coupled: false; or a gpuResource that is shared, as "
        f"nvidia.com/gpu.shared or a MIG profile.'.format([{of(_USED)}, {of(_N)}, {of(_N)}])",
        computed=True,
        field=f".machineParams.{mode}.gpuIds",
    )


def _env_twice(mode: str) -> Rule:
    env = f"self.machineParams.{mode}.env"
    twice = "name in self.env && !name.startsWith('RUNONCE_') && name != 'JOB_COMPLETION_INDEX'"
    return Rule(
        at="ExperimentSpec",
        check=f"!has(self.env) || !has(self.machineParams.{mode}) || !has({env}) || !{env}.exists(name, {twice})",
        message="'%s: is given in spec.env too, where it is in the key. Give it once: there if it can change the "
        f"result, here if not.'.format([{env}.filter(name, {twice})[0]])",
        computed=True,
        field=f".machineParams.{mode}.env",
    )


def _reserved(at: str, allowed: tuple[str, ...]) -> Rule:
    ours = f"(name.startsWith('RUNONCE_') || name == 'JOB_COMPLETION_INDEX') && !(name in {list(allowed)})"
    return Rule(
        at=at,
        check=f"self.all(name, !({ours}))",
        message=f"'%s: is set by Runonce itself. Choose another name.'.format([self.filter(name, {ours})[0]])",
        computed=True,
    )


def _one_of(at: str, *names: str) -> Rule:
    given = ", ".join(f"has(self.{name})" for name in names)
    any_given = " || ".join(f"has(self.{name})" for name in names)
    return Rule(
        at=at,
        check=f"[{given}].exists_one(given, given)",
        message=f"({any_given} ? 'has several' : 'has none') + ' of {', '.join(names)}. Give one of them.'",
        computed=True,
    )


_SPEC = (
    Rule(
        at="ExperimentSpec",
        check="has(self.config) != has(self.command)",
        message="'config and command are both ' + (has(self.config) ? 'given' : 'missing') + "
        "'. Give config: module:Class, or command: [program, …].'",
        computed=True,
    ),
    Rule(
        at="ExperimentSpec.codeVersion",
        check=r"self.matches(r'^(source:[0-9a-f]{64}|image|label:[^\s\x00-\x1f\x85\pZ]{1,128})$')",
        message="it is source:<64 hex digits>, image, or label:<text without blanks>. "
        "Leave it out and let `runonce render` fill it in.",
    ),
    Rule(
        at="ExperimentSpec",
        check="!has(self.codeVersion) || self.codeVersion != 'image' || "
        "(has(self.image) && self.image.matches('@sha256:[0-9a-f]{64}$'))",
        message="codeVersion: image needs it by digest. Write name@sha256:<64 hex>.",
        field=".image",
    ),
    Rule(
        at="ExperimentSpec",
        check="!has(self.command) || has(self.codeVersion) || (has(self.code) && self.code.size() > 0)",
        message="is missing: nobody could tell which files the command's result depends on. "
        'Name them, as in code: ["*.sh", "src/**/*.c"], or give a codeVersion.',
        field=".code",
    ),
    Rule(
        at="ExperimentSpec",
        check="has(self.command) || !has(self.code) || self.code.size() == 0",
        message="goes with command; a config's code is found by its imports. Remove it.",
        field=".code",
    ),
    Rule(
        at="ExperimentSpec",
        check="has(self.config) || ((!has(self.codePackages) || self.codePackages.size() == 0) && "
        "(!has(self.paramsOnlyIn) || self.paramsOnlyIn.size() == 0))",
        message="codePackages and paramsOnlyIn go with config. Remove them.",
    ),
    Rule(
        at="ExperimentSpec.hash",
        check="self.matches('^[0-9a-zA-Z][0-9a-zA-Z._-]{0,63}$')",
        message="a pinned hash has 1 to 64 of the characters 0-9 a-z A-Z . _ - and begins with one of "
        "0-9 a-z A-Z. Write such a name, or leave hash out to have it computed.",
    ),
    Rule(
        at="Machines",
        check="has(self.train) || has(self.valid) || has(self.test)",
        message="has no mode. Give train, valid or test, as in train: {nprocesses: 1}.",
    ),
    _reserved("ExperimentSpec.env", ()),
    _reserved("MachineBlock.env", TUNABLE),
    *(_env_twice(mode) for mode in MODES),
    *(_too_few(mode) for mode in MODES),
)

_PLACES = (
    _one_of("EnvFrom", "configMap", "secret"),
    _one_of("Volume", "persistentVolumeClaim", "configMap", "secret", "hostPath"),
    Rule(
        at="ExperimentSpec.volumes",
        check="self.all(one, self.exists_one(other, other.name == one.name))",
        message="give one name to several volumes. Name each differently.",
    ),
    Rule(
        at="ExperimentSpec.volumes",
        check="self.all(one, self.exists_one(other, other.mountPath == one.mountPath))",
        message="give one mountPath to several volumes. Mount each in a folder of its own.",
    ),
    Rule(
        at="Volume",
        check=f"!self.name.startsWith('{OWN_VOLUMES}')",
        message=f"begins with {OWN_VOLUMES}, as Runonce's own volumes do. Choose another name.",
        field=".name",
    ),
    Rule(
        at="Volume",
        check=f"!(self.mountPath in {list(OWN_FOLDERS)})",
        message=f"is one of {', '.join(OWN_FOLDERS)}, where Runonce mounts its own. Choose another folder.",
        field=".mountPath",
    ),
    Rule(
        at="Toleration",
        check="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        message="has no key, which only operator: Exists allows. Give the key of the taint.",
    ),
    Rule(
        at="Toleration",
        check="!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        message="has a value, which operator: Exists does not compare. Remove one of them.",
    ),
    Rule(
        at="Toleration",
        check="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="has tolerationSeconds, which go with effect: NoExecute. Give that effect, or remove them.",
    ),
)

RULES = (*_SPEC, *_BLOCK, *_PLACES)
