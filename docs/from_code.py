"""Make the parts of the reference that follow from the code: commands, config keys, columns, flags. A Sphinx extension."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types as python_types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer.main
from curves import false_alarms, spoiled_curves
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from reproduction import paper_coverage, paper_residuals

from galbatch import ingest, models
from galbatch.cli import app as cli
from galbatch.config import PosteriorConfig, RunConfig
from galbatch.core.columns import Column, photometry_columns, provenance_columns
from galbatch.core.flags import CatalogFlag, MaskBit, ModelFlag, PixelFlag
from galbatch.core.process import EXTRAS
from galbatch.models.heads import HEADS

PLACE = re.compile(r"<!-- ([A-Z_]+) -->")

# A link to a row of the page of addresses outside, from any folder.
OUTSIDE = re.compile(r"\]\((?:\.\./|docs/)*addresses\.md#([a-z0-9-]+)\)")
ADDRESS_ROW = re.compile(r"^\| ([a-z0-9-]+) \| <(https://[^>]+)> \|", re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this: pages get their generated parts as they are read."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}


def _fill(app: Any, page: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def filled(text: str) -> str:
    """Return the Markdown of a page with the tables from the code in place of comments such as ``<!-- COMMANDS -->``."""
    for name in PLACE.findall(text):
        text = text.replace(f"<!-- {name} -->", GENERATED[name]())
    return with_addresses(text)


def addresses() -> dict[str, str]:
    """Return the addresses outside of the project, by their names: the rows of addresses.md."""
    return dict(ADDRESS_ROW.findall((Path(__file__).parent / "addresses.md").read_text(encoding="utf-8")))


def with_addresses(text: str) -> str:
    """Return the Markdown with the addresses themselves in place of links to rows of addresses.md."""
    known = addresses()
    return OUTSIDE.sub(lambda link: f"]({known[link[1]]})", text)


def commands() -> str:
    """Return every visible command with its arguments, options and defaults."""
    return "\n".join(_command_lines(typer.main.get_command(cli.app), "galbatch"))


def _command_lines(command: Any, name: str) -> list[str]:
    if hasattr(command, "commands"):
        visible = [c for c in command.commands.items() if not c[1].hidden]
        return [line for key, child in visible for line in _command_lines(child, f"{name} {key}")]
    lines = [
        f"## `{name}`",
        "",
        command.help or "",
        "",
        "| argument or option | default | meaning |",
        "|---|---|---|",
    ]
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        label = ", ".join(parameter.opts) if is_option else parameter.metavar or parameter.name.upper()
        default = "required" if parameter.required else _text(parameter.default)
        lines.append(f"| `{label}` | {default} | {parameter.help} |")
    return [*lines, ""]


def _text(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def config_keys() -> str:
    """Return every key of run.toml: type, default, meaning."""
    lines = []
    for name, info in RunConfig.model_fields.items():
        section = info.annotation
        is_list = typing.get_origin(section) is tuple
        if is_list:
            section = typing.get_args(section)[0]
        section = _section_of(section)
        lines += _section_lines(f"[[{name}]]" if is_list else f"[{name}]", section, info.description)
        for key, field in _section_fields(section):
            if inner := _section_of(field.annotation):
                # A list of sections, such as [[models.cases]], is a tuple of them.
                several = typing.get_origin(field.annotation) is tuple
                title = f"[[{name}.{key}]]" if several else f"[{name}.{key}]"
                lines += _section_lines(title, inner, field.description)
    return "\n".join(lines)


def _section_lines(title: str, section: Any, description: str | None) -> list[str]:
    """Return the table of the section's own keys; sections within it have tables of their own."""
    keys = [pair for pair in _section_fields(section) if not _section_of(pair[1].annotation)]
    return [
        f"## `{title}`: {description}",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
        *(_key_line(key, field) for key, field in keys),
        "",
    ]


def _section_of(kind: Any) -> type[BaseModel] | None:
    """Return the class of a section that may be missing or not; None for keys of other types."""
    kinds = (kind, *typing.get_args(kind))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _section_fields(section: Any) -> list[tuple[str, Any]]:
    assert issubclass(section, BaseModel)
    return list(section.model_fields.items())


def _key_line(key: str, field: Any) -> str:
    default = field.get_default(call_default_factory=True)
    shown = "required" if default is PydanticUndefined else _toml(default)
    return f"| `{key}` | {_type_name(field.annotation)} | {shown} | {field.description} |"


def _toml(value: Any) -> str:
    if value is None:
        return "(empty)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _type_name(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is tuple:
        return f"list of {_type_name(args[0])}"
    if origin is dict:
        return f"table of {_type_name(args[1])}"
    if origin in (typing.Union, python_types.UnionType):
        return " or ".join(_type_name(arg) for arg in args if arg is not type(None))
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        kind.__name__, kind.__name__
    )


def training_settings() -> str:
    """Return every key of a file of training settings: default, meaning."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    # The options of heads are inherited, so they would come first.
    for field in sorted(dataclasses.fields(models.TrainingSettings), key=lambda field: field.kw_only):
        texts = [part.description for part in field.type.__metadata__ if part.description]
        required = field.default is dataclasses.MISSING
        default = "required" if required and field.name not in FILLED_IN else _text(_plain(field.default))
        lines.append(f"| `{field.name}` | {default} | {texts[0]} |")
    return "\n".join(lines)


FILLED_IN = ("name", "architecture")  # by the command


def _plain(default: Any) -> Any:
    if default is dataclasses.MISSING or default in ((), ""):
        return None
    return str(default).lower() if isinstance(default, bool) else default


def flag_table(flags: type[CatalogFlag]) -> str:
    """Return the table of value, name, class and flag text."""
    rows = [f"| {flag.value} | {flag.name} | {flag.flag_class.value} | {flag.text} |" for flag in flags]
    return "\n".join(["| value | name | class | meaning |", "|---|---|---|---|", *rows])


def model_columns() -> str:
    """Return the columns of the two demo bundles, as the default [posterior] makes them."""
    found: list[Column] = []
    for spec, name in (("demo:gampen", "gampen"), ("demo:sfnet", "sfnet")):
        metadata, _ = models.read_bundle_metadata(models.bundle_path(spec))
        found += models.result_columns(metadata, name=name, quantiles=PosteriorConfig().quantiles)
    return column_table(found)


def column_table(columns: Iterable[Column]) -> str:
    """Return the table of some columns of a catalog."""
    rows = [f"| `{c.name}` | {c.dtype} | {c.unit} | {c.ucd} | {c.description} |" for c in columns]
    return "\n".join(["| column | type | unit | UCD | meaning |", "|---|---|---|---|---|", *rows])


def mask_bits() -> str:
    """Return the table of the store's own mask bits."""
    return "\n".join(["| bit | name |", "|---|---|", *(f"| {bit.value} | {bit.name} |" for bit in MaskBit)])


def extras() -> str:
    """Return the table of the extras, by what needs them."""
    rows = [f"| `{extra.name}` | {package} | {extra.use} |" for package, extra in sorted(EXTRAS.items())]
    return "\n".join(["| extra | package | needed by |", "|---|---|---|", *rows])


def heads() -> str:
    """Return the table of the kinds of heads: what a pass puts out, and how the outputs are arranged."""
    lines = ["| head | a pass is | outputs for n parameters | options |", "|---|---|---|---|"]
    for kind, head in HEADS.items():
        outputs = " ".join((inspect.getdoc(type(head)) or "").partition("\n\n")[0].split())
        options = ", ".join(f"`{option}`" for option in head.options)
        lines.append(f"| `{kind}` | {head.text} | {outputs} | {options} |")
    return "\n".join(lines)


OUT, KEEP, LOOK = "out", "keep", "look"
SCIENCES = (
    "sizes, shapes, fluxes",
    "counts, complete samples",
    "rare and peculiar objects",
    "redshifts, colors",
)

# What to begin with for each flag, in the order of SCIENCES. Counts keep a row whose value is doubtful but there, as leaving it out makes a hole; hunts for
# rare objects leave out what spoils pixels and look at all that is unlike the training set, which is where rare objects are.
DECISIONS: dict[str, tuple[str, str, str, str]] = {
    "OUTSIDE_FOOTPRINT": (OUT, OUT, OUT, OUT),
    "PARTIAL_COVERAGE": (OUT, LOOK, OUT, OUT),
    "MISSING_BAND": (OUT, LOOK, OUT, OUT),
    "BAD_CENTER": (OUT, LOOK, OUT, OUT),
    "SATURATED": (OUT, OUT, OUT, OUT),
    "BRIGHT_OBJECT": (OUT, OUT, OUT, OUT),
    "MOSAICKED": (KEEP, KEEP, KEEP, KEEP),
    "RESAMPLED": (LOOK, KEEP, LOOK, KEEP),
    "NEIGHBOR": (LOOK, KEEP, LOOK, LOOK),
    "DUPLICATE_POSITION": (OUT, OUT, OUT, OUT),
    "LOW_SNR": (OUT, LOOK, OUT, LOOK),
    "BLENDED": (LOOK, KEEP, LOOK, LOOK),
    "SATURATED_CORE": (OUT, LOOK, OUT, OUT),
    "SKY_OFFSET": (OUT, LOOK, LOOK, LOOK),
    "POINT_LIKE": (OUT, LOOK, LOOK, LOOK),
    "PSF_UNLIKE": (OUT, KEEP, LOOK, LOOK),
    "NOT_SELECTED": (OUT, LOOK, OUT, OUT),
    "MISSING_PIXELS": (OUT, LOOK, OUT, OUT),
    "MODEL_FAILED": (OUT, OUT, OUT, OUT),
    "NOT_CONVERGED": (LOOK, KEEP, KEEP, LOOK),
    "EXTRAPOLATED": (OUT, LOOK, LOOK, OUT),
    "OUT_OF_DOMAIN": (OUT, LOOK, LOOK, OUT),
    "CROP_AT_LIMIT": (OUT, KEEP, LOOK, KEEP),
    "NO_POSTERIOR": (LOOK, KEEP, KEEP, LOOK),
    "NO_MAGNITUDE": (LOOK, LOOK, KEEP, LOOK),
    "DOMAIN_UNKNOWN": (LOOK, KEEP, KEEP, LOOK),
    "NO_MOMENTS": (KEEP, KEEP, KEEP, KEEP),
    "INCONSISTENT": (OUT, LOOK, LOOK, LOOK),
}


def flag_decisions() -> str:
    """Return the table of what to do with each flag for each kind of question; names, texts and classes are those of the code."""
    lines = [
        f"| flag | what it says | class | {' | '.join(SCIENCES)} |",
        "|---|---|---" + "|---" * len(SCIENCES) + "|",
    ]
    for flag in (*PixelFlag, *ModelFlag):
        words = " | ".join(f"**{word}**" if word == OUT else word for word in DECISIONS[flag.name])
        lines.append(f"| {flag.name} | {flag.text} | {flag.flag_class.value} | {words} |")
    return "\n".join(lines)


def versions() -> str:
    """Return the sentence that states the two versions which are raised when numbers change."""
    return f"INGEST_VERSION is {ingest.INGEST_VERSION}, INFER_VERSION is {models.INFER_VERSION}."


def readme() -> str:
    """Return the README up to the list of what else there is, which the site's own menu replaces."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    text = text.partition("\n## More\n")[0].replace("](docs/", "](")
    return re.sub(
        r"\[([^]]*)\]\((?!http)[^)]*(?<!\.md)\)", r"\1", text
    )  # folders of the repository are no pages


GENERATED: dict[str, Callable[[], str]] = {
    "COMMANDS": commands,
    "CONFIG": config_keys,
    "TRAINING": training_settings,
    "FLAG_DECISIONS": flag_decisions,
    "PIXEL_FLAGS": lambda: flag_table(PixelFlag),
    "MODEL_FLAGS": lambda: flag_table(ModelFlag),
    "MASK_BITS": mask_bits,
    "EXTRAS": extras,
    "HEADS": heads,
    "COLUMNS": model_columns,
    "PHOTOMETRY": lambda: column_table(photometry_columns(("g",))),
    "PROVENANCE": lambda: column_table(provenance_columns(("g",))),
    "FALSE_ALARMS": false_alarms,
    "PAPER_COVERAGE": paper_coverage,
    "PAPER_RESIDUALS": paper_residuals,
    "SPOILED_CURVES": spoiled_curves,
    "VERSIONS": versions,
    "README": readme,
}
