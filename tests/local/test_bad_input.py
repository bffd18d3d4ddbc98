"""What cannot be: exit code 2, a message that says what was found, where, and what to do; nothing written."""

from __future__ import annotations

import pytest

from runonce.cli import runonce
from runonce.errors import InputError

HEAD = """apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: tiny}
"""


def refuse(place, *arguments: str, stdin: str = "", saying: list[str] | None = None):
    done = place.runonce(*arguments, stdin=stdin)
    assert done.code == 2, (done.code, done.out, done.err)
    assert "Traceback" not in done.err
    for text in saying or []:
        assert text in done.err
    assert not place.home.exists() or not any((place.home / "store").glob("*"))
    assert not (place.home / "jobs").exists()
    return done.err


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("a: [1\n", "cannot be read as YAML"),
        ("", "holds no document"),
        ("# nothing\n---\n", "holds no document"),
        ("kind: Pod\napiVersion: v1\n", "is no Experiment: apiVersion is v1, kind Pod"),
        ("- a\n", "is no mapping"),
        (HEAD + "spec: {config: tiny:Tiny}\n", "spec.machineParams: is missing"),
        (HEAD.replace("name: tiny", "nam: tiny") + "spec: {}\n", "metadata.name: is missing"),
        (HEAD.replace("tiny", "Tiny_1") + "spec: {}\n", "metadata.name: is 'Tiny_1'"),
    ],
)
def test_what_is_no_experiment(place, text, saying):
    place.write("bad.yaml", text)
    refuse(place, "run", "bad.yaml", saying=[saying])


@pytest.mark.parametrize(
    ("old", "new", "saying"),
    [
        ("keyMachine: true", "keyMachines: true", "spec.keyMachines: is no field here. Did you mean keyMachine?"),
        ("keyMachine: true", "key_machine: true", "spec.key_machine: is no field here. Did you mean keyMachine?"),
        ("keyMachine: true", "seed: a", "spec.seed: is 'a'; a whole number is meant"),
        ("keyMachine: true", "seed: 1.5", "spec.seed: is 1.5; a whole number is meant"),
        ("keyMachine: true", "keyMachine: maybe", "spec.keyMachine: is 'maybe'; true or false is meant"),
        ("keyMachine: true", "seed: 1\n  seed: 2", "has the key 'seed' twice"),
        ("keyMachine: true", "env: {A: 1}", "spec.env.A: is 1; text is meant"),
        ("keyMachine: true", "hash: ../../x", "spec.hash: is '../../x'; a pinned hash has 1 to 64 of the characters"),
        ("keyMachine: true", "hash: ''", "spec.hash: is ''"),
        (
            "keyMachine: true",
            "codeVersion: v1",
            "spec.codeVersion: is 'v1'; it is source:<64 hex digits>, image, or label",
        ),
        ("keyMachine: true", "codeVersion: image", "codeVersion: image needs it by digest"),
        ("keyMachine: true", "hashAs: {nope/x: 1, /a/b: 2}", 'spec.hashAs["/a/b"]: leads nowhere in params'),
        ("keyMachine: true", "command: [a]", "spec: config and command are both given"),
        ("config: tiny:Tiny", "seed: 1", "spec: config and command are both missing"),
        ("config: tiny:Tiny", "config: tiny.py", "spec.config: is 'tiny.py'; module:Class is meant"),
        ("label: a", "label: null", "spec.params.label: is null. Write {$none: true} for None"),
        ("label: a", "label: [[{x: ~}]]", "spec.params.label[0][0].x: is null"),
        ("lr: 0.1", "lr: 9007199254740993", 'Write {$int: "9007199254740993"}'),
        ("lr: 0.1", "lr: 1e400", "lr"),
        (
            "lr: 0.1",
            "lr: 1e18",
            "spec.params.lr: is 1000000000000000000: an API server may hand back another whole number",
        ),
        ("label: a", "$label: a", "has the key '$label': keys that begin with $ are kept for tags"),
        ("label: a", "label: {$int: '1'}", "$int is for whole numbers from 2^53 on. Write 1"),
        ("label: a", "label: !!str a", "has the tag !!str"),
        ("params: {", "params: {<<: {x: 1}, ", "has a merge key <<"),
        (
            "train: {nprocesses: 1,",
            "train: {nprocesses: 1, gpus: 2,",
            "spec.machineParams.train.gpus: is no field here",
        ),
        ("train: {nprocesses: 1,", "training: {nprocesses: 1,", "Did you mean train?"),
        ("train: {nprocesses: 1,", "train: {gpuIds: [0],", "spec.machineParams.train.nprocesses: is missing"),
        (
            "train: {nprocesses: 1,",
            "train: {nprocesses: -1,",
            "spec.machineParams.train.nprocesses: is -1; a number of",
        ),
    ],
)
def test_what_a_file_cannot_say(edited, old, new, saying):
    refuse(edited(old, new), "run", "tiny.yaml", saying=[saying])


def test_all_faults_of_all_documents_are_named_together(place):
    text = (place.folder / "tiny.yaml").read_text()
    place.write(
        "bad.yaml", text.replace("lr: 0.1", "lr: null").replace("key", "kee") + "---\n" + text.replace("0.1", "~")
    )
    err = refuse(place, "run", "bad.yaml")
    assert err.count("error: ") == 3
    assert "bad.yaml, line 7: spec.params.lr: is null" in err
    assert "spec.keeMachine: is no field here" in err


@pytest.mark.parametrize("command", ["run", "plan", "key", "render", "explain", "show", "compare", "submit"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: 0.1", "lr: null", "bad.yaml, line 7: spec.params.lr: is null. Write {$none: true}"),
        ("lr: 0.1", "lr: 1\n  lr: 2", "cannot be read as YAML"),
        ("keyMachine: true", "keyMachines: true", "spec.keyMachines: is no field here. Did you mean keyMachine?"),
        ("train: {nprocesses: 1,", "train: {nprocesses: -1,", "spec.machineParams.train.nprocesses: is -1; a number"),
        ("tiny:Tiny", "nowhere:Tiny", "there is no module nowhere here"),
    ],
    ids=["null", "no YAML", "unknown field", "machine", "no such module"],
)
def test_every_command_that_takes_a_file_refuses_it_in_the_same_words(edited, monkeypatch, command, old, new, said):
    place = edited(old, new)
    (place.folder / "tiny.yaml").rename(place.folder / "bad.yaml")
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("RUNONCE_HOME", str(place.home))
    monkeypatch.delenv("RUNONCE_STORE", raising=False)
    with pytest.raises(InputError) as caught:
        runonce.main([command, "bad.yaml"], standalone_mode=False)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
    assert not place.home.exists()


@pytest.mark.parametrize(
    ("old", "new", "saying"),
    [
        ("lr: 0.1", "lrr: 0.1", "spec.params.lrr: is no field of Params. Did you mean lr?"),
        ("lr: 0.1", "lr: fast", "spec.params.lr"),
        ("steps: 3", "steps: 3.5", "spec.params.steps"),
        ("label: a", "label: {$type: 'tiny:Params', value: {}}", "spec.params.label"),
        ("label: a", "label: {$ref: 'nowhere:x'}", "spec.params.label"),
        ("tiny:Tiny", "nowhere:Tiny", "there is no module nowhere here"),
        ("tiny:Tiny", "tiny:Tinny", "tiny has no Tinny. Did you mean Tiny?"),
        ("tiny:Tiny", "tiny:Params", "tiny:Params is no ExperimentConfig"),
        ("tiny:Tiny", "__main__:Tiny", "__main__"),
        (
            "keyMachine: true",
            "keyMachine: true\n  hashExclude: [stepps]",
            "names 'stepps', no field of Params. Did you mean steps?",
        ),
        (
            "keyMachine: true",
            "keyMachine: true\n  paramsOnlyIn: {lr: test}",
            "spec.paramsOnlyIn.lr: is kept to test here and not by Params",
        ),
        ("keyMachine: true", "seed: 0", "spec.keyMachine: is not given, and Tiny brings its own loop"),
        (
            "keyMachine: true",
            "keyMachine: true\n  codeVersion: 'source:" + "0" * 64 + "'",
            "but the code here is source:",
        ),
        (
            "keyMachine: true",
            "keyMachine: true\n  image: 'a@sha256:" + "0" * 64 + "'\n  codeVersion: image",
            "what is in an image cannot be proved here",
        ),
    ],
)
def test_what_the_code_does_not_take(edited, old, new, saying):
    refuse(edited(old, new), "run", "tiny.yaml", saying=[saying])


def test_a_partial_file_with_a_label_is_refused(edited):
    place = edited("params: {lr: 0.1, steps: 3, label: a}", "params: {lr: 0.1}\n  codeVersion: label:v1")
    refuse(
        place, "run", "tiny.yaml", saying=["spec.params: lacks label, steps, and a label does not say which defaults"]
    )


def test_another_spelling_than_the_one_that_is_hashed_is_refused_with_the_right_line(place):
    code = (place.folder / "tiny.py").read_text()
    place.write("tiny.py", code.replace('label: str = "a"', "label: set = field(default_factory=set)"))
    text = (place.folder / "tiny.yaml").read_text()
    place.write("tiny.yaml", text.replace("label: a", "label: [2, 1]"))
    refuse(place, "run", "tiny.yaml", saying=["spec.params.label", "[1,2]"])


CLASSES = """
import runonce
import other
print("it was run")
class Params(runonce.ExperimentParameters): pass
class Base(runonce.ExperimentConfig): pass
class Mine(Base): pass
class Helper: pass
"""


@pytest.mark.parametrize(
    ("target", "saying"),
    [
        ("mine.py", "mine.py is Python, no file of experiments. Name a class of it: mine:Base or mine:Mine."),
        ("mine.py:Mine", "Name a class of it: mine:Mine."),
        ("package/derived.py", "Name a class of it: package.derived:Derived."),
        ("package/broken.py", "Name a class of it: package.broken:Class."),
        ("../work/mine.py", "Start in ../work and name a class of it: mine:Base or mine:Mine."),
    ],
)
def test_of_a_python_file_the_classes_are_named_that_it_has(place, target, saying):
    place.write("mine.py", CLASSES)
    place.write("package/derived.py", "from mine import Mine\nclass Derived(Mine): pass\n")
    place.write("package/broken.py", "class (")
    assert "it was run" not in refuse(place, "run", target, saying=[saying])


@pytest.mark.parametrize(
    ("target", "saying"),
    [
        ("tiny:Tiny.x", "tiny has no Tiny.x"),
        ("nowhere:Tiny", "there is no module nowhere here. Start in the folder that holds it"),
        ("broken:Tiny", "broken cannot be imported: ZeroDivisionError"),
        ("syntax:Tiny", "syntax cannot be imported: SyntaxError"),
        ("needs:Tiny", "needs cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("lacks:Lacks", "lacks:Lacks lacks create_model, machine_params, make_sampler_fn, tag, training_pipeline"),
        ("raises:Raises", "Raises.tag raised RuntimeError: no"),
        ("machine:Env", "spec.machineParams.train.env.A: is 1; text is meant"),
        ("machine:Resource", "spec.machineParams.train.gpuResource: is 3; text is meant"),
        ("big:Big", "spec.params: is "),
        ("machine:Bad", "spec.machineParams.train.gpuIds: has 3 different ids for 2 processes"),
        ("lambdas:Lambdas", "params.f: is a lambda"),
        ("lambdas:Deep", "params.f.a[0].b"),
        ("lambdas:Twice", "params.x"),
        ("pinned:Pinned", "hash: is '../../x'"),
        ("nofile.yaml", "nofile.yaml cannot be read"),
        (".", "cannot be read"),
    ],
)
def test_a_class_that_cannot_be_used(place, target, saying):
    place.write("broken.py", "1 / 0\n")
    place.write("syntax.py", "def (\n")
    place.write("needs.py", "import no_such_thing\n")
    place.write("lacks.py", "from runonce import ExperimentConfig\nclass Lacks(ExperimentConfig): pass\n")
    place.write("raises.py", "from tiny import Tiny\nclass Raises(Tiny):\n def tag(self): raise RuntimeError('no')\n")
    place.write(
        "machine.py",
        "from tiny import Tiny\nclass Bad(Tiny):\n"
        " def machine_params(self, mode='train', **kwargs): return {'nprocesses': 2, 'gpu_ids': [0, 1, 2]}\n"
        "class Env(Tiny):\n"
        " def machine_params(self, mode='train', **kwargs): return {'nprocesses': 1, 'env': {'A': 1}}\n"
        "class Resource(Tiny):\n"
        " def machine_params(self, mode='train', **kwargs): return {'nprocesses': 1, 'gpu_resource': 3}\n",
    )
    place.write("lambdas.py", LAMBDAS)
    place.write("pinned.py", PINNED)
    place.write(
        "big.py",
        "from dataclasses import dataclass\nfrom tiny import Params, Tiny\n@dataclass\nclass P(Params):\n"
        "    label: str = 'x' * 70000\nclass Big(Tiny):\n    Params = P\n",
    )
    refuse(place, "run", target, saying=[saying])


LAMBDAS = """
from dataclasses import dataclass, field
from typing import Any
from runonce import ExperimentParameters
from tiny import Tiny

@dataclass
class A(ExperimentParameters):
    f: Any = lambda v: v
@dataclass
class B(ExperimentParameters):
    f: Any = field(default_factory=lambda: {"a": [{"b": open}]})
    def __post_init__(self): self.f["a"][0]["b"] = lambda: 1
@dataclass
class C(ExperimentParameters):
    x: float = 1.0
    def __post_init__(self): self.x *= 2
class Lambdas(Tiny):
    Params = A
class Deep(Tiny):
    Params = B
class Twice(Tiny):
    Params = C
"""

PINNED = """
from dataclasses import dataclass
from tiny import Tiny, Params
@dataclass
class P(Params):
    hash: str = "../../x"
class Pinned(Tiny):
    Params = P
"""


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (("-p", "lr"), "-p: is 'lr'. Write -p name=value."),
        (("-p", "lr=0.1", "-p", "lr=0.2"), "-p: names lr twice"),
        (("-p", "lrr=0.1"), "lrr"),
        (("-p", "lr.x=0.1"), "lr.x: lr is no mapping with fields"),
        (("-p", "lr=[1"), "cannot be read as YAML"),
        (("-p", "lr=fast"), "lr"),
        (("-p", "label="), "label: is null"),
        (("--mode", "valid"), "tiny has no mode valid"),
        (("--store", "gs://bucket"), "results are kept in folders and in S3"),
        (("--store", "s3://Bucket_1"), "'Bucket_1' can be no bucket's name"),
        (
            ("-p", "lr=1", "--grid", "lr=[1, 2]"),
            "lr: is given one value, and a grid of values too. Leave one of them out.",
        ),
        (("--nope",), "No such option"),
    ],
)
def test_options_that_cannot_be(place, arguments, saying):
    refuse(place, "run", "tiny.yaml", *arguments, saying=[saying])


def test_one_fault_is_told_once(place):
    assert refuse(place, "run", "tiny.yaml", "--store", "s3://").count("error: ") == 1


def test_two_documents_of_one_name_are_refused(place):
    text = (place.folder / "tiny.yaml").read_text()
    place.write("both.yaml", text + "---" + text)
    refuse(place, "run", "both.yaml", saying=["is the name of two experiments (both.yaml, line 2; both.yaml, line 13)"])


def test_a_loop_that_changes_its_parameters_is_stopped_before_it_publishes(place, edited):
    edited("        for step in", "        self.params.lr = 7.0\n        for step in", "tiny.py")
    done = place.runonce("run", "tiny.yaml")
    assert done.code == 2
    assert "train(run) changed the parameters" in done.err
    assert place.commits() == []


def test_a_config_that_changes_its_parameters_when_it_is_built_is_stopped(place, edited):
    init = "    def __init__(self, params=None):\n        super().__init__(params)\n        self.params.lr = 7.0\n\n"
    edited("    def tag(self):", init + "    def tag(self):", "tiny.py")
    done = place.runonce("run", "tiny.yaml")
    assert done.code == 2
    assert "building the config changed the parameters" in done.err
    assert place.commits() == []


def test_everything_that_has_no_form_is_named_together_with_its_path_deep_inside_too(place):
    place.write("formless.py", FORMLESS)
    err = refuse(place, "run", "formless:Formless")
    for path, what in (
        ("a.x[0]", "is a lambda"),
        ("b", "is a lambda"),
        ("c", "bound to a Plain"),
        ("d", "has no form"),
        ("e", "has no form"),
        ("f", "levels deep"),
        ("g", "lone surrogate"),
        ("h[1]", "has no form"),
        ("i", "is a lambda"),
        ("j", "begins with $"),
    ):
        assert any(f"params.{path}" in line and what in line for line in err.splitlines()), (path, what, err)
    assert "hash_representations" in err


FORMLESS = """
import functools, sys
from dataclasses import dataclass
from typing import Any
from runonce import ExperimentParameters
from tiny import Tiny

class Plain:
    def method(self): return 1

def closure(n): return lambda: n

@dataclass
class P(ExperimentParameters):
    a: Any = 0
    b: Any = 0
    c: Any = 0
    d: Any = 0
    e: Any = 0
    f: Any = 0
    g: Any = 0
    h: Any = 0
    i: Any = 0
    j: Any = 0

    def __post_init__(self):
        cycle = []
        cycle.append(cycle)
        self.a, self.b, self.c, self.d = {"x": [lambda v: v]}, closure(1), Plain().method, Plain()
        self.e, self.f, self.g, self.h = sys.__stdout__, cycle, "\\ud800", [1, Plain()]
        self.i, self.j = functools.partial(lambda v: v), {"$a": 1}

class Formless(Tiny):
    Params = P
"""


def test_a_module_that_no_import_statement_shows_is_named_and_the_setting_cures_it(place, edited):
    place.write("tiny.py", (place.folder / "tiny.py").read_text().replace("import json\n", IMPORTS, 1))
    place.write("plugins/__init__.py", "")
    place.write("plugins/one.py", "")
    place.write("uses.py", "import plugins\n")
    done = place.runonce("run", "tiny.yaml")
    assert done.code == 2
    assert 'include = ["plugins.one"]' in done.err
    place.write("pyproject.toml", '[tool.runonce.code]\ninclude = ["plugins.one"]\n')
    assert place.runonce("run", "tiny.yaml").code == 0


IMPORTS = "import json, importlib, plugins\nimportlib.import_module('plugins.' + 'one')\n"
