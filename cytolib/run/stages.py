"""The chain of stages as data: what each stage needs, and where its notebook or function stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cytolib.run.paths import root


@dataclass(frozen=True)
class StageSpec:
    """One stage of the chain.

    Attributes:
        name: folder name of the stage; a notebook stage runs ``<name>.ipynb``.
        kind: "notebook" (executed by papermill) or "script" (a function in a process of its own).
        needs: stages whose artefacts it may read.
        entry: for scripts, ``module:function`` with the signature ``main(stage, **typed keyword defaults)``.
        threads: cores it is given; the thread pools of its process are pinned to this number.
    """

    name: str
    kind: Literal["notebook", "script"] = "notebook"
    needs: tuple[str, ...] = ()
    entry: str = ""
    threads: int = 1


STAGES: tuple[StageSpec, ...] = (
    StageSpec("00_data"),
    StageSpec("01_embed", needs=("00_data",), threads=2),
    StageSpec("02_train_diffusion", needs=("00_data", "01_embed")),
    StageSpec("03_sample", needs=("00_data", "01_embed", "02_train_diffusion")),
    # its seeds run side by side with the same bytes on any number of cores
    StageSpec("04_sweep", "script", needs=("00_data", "01_embed"), entry="cytolib.evaluate.sweep:main", threads=8),
    StageSpec(
        "04_augment_classifiers",
        needs=("00_data", "01_embed", "02_train_diffusion", "03_sample", "04_sweep"),
    ),
    StageSpec(
        "10_figures",
        needs=(
            "00_data",
            "01_embed",
            "02_train_diffusion",
            "03_sample",
            "04_sweep",
            "04_augment_classifiers",
        ),
    ),
)


@dataclass(frozen=True)
class Chain:
    """The stages, in an order in which each comes after what it needs, and the folder of their notebooks."""

    stages: tuple[StageSpec, ...] = STAGES
    notebooks: Path = field(default_factory=lambda: root() / "notebooks")

    def __getitem__(self, name: str) -> StageSpec:
        for spec in self.stages:
            if spec.name == name:
                return spec
        raise ValueError(f"{name!r} is no stage; the stages are {', '.join(s.name for s in self.stages)}")

    def names(self) -> tuple[str, ...]:
        """Names of all stages, in order."""
        return tuple(spec.name for spec in self.stages)

    def notebook(self, spec: StageSpec) -> Path:
        """The source notebook of a notebook stage."""
        return self.notebooks / f"{spec.name}.ipynb"

    def up_to(self, name: str | None) -> tuple[StageSpec, ...]:
        """The stage ``name`` and all that it needs, directly or not; every stage for None."""
        if name is None:
            return self.stages
        wanted, todo = set[str](), [name]
        while todo:
            current = self[todo.pop()]
            if current.name not in wanted:
                wanted.add(current.name)
                todo.extend(current.needs)
        return tuple(spec for spec in self.stages if spec.name in wanted)

    def as_json(self) -> dict[str, Any]:
        """The chain as plain JSON values; ``chain_from_json`` reads them back."""
        return {"notebooks": str(self.notebooks), "stages": [asdict(spec) for spec in self.stages]}


def chain_from_json(values: dict[str, Any]) -> Chain:
    """The chain that ``Chain.as_json`` wrote."""
    stages = tuple(StageSpec(**{**spec, "needs": tuple(spec["needs"])}) for spec in values["stages"])
    return Chain(stages, Path(values["notebooks"]))
