"""The bundles of a run: their descriptions, their networks, and the engines that run these.

Torch takes two seconds to import, and a network as long to be checked. A run that begins by cutting reads what its bundles say, without
torch; the networks are checked, and their engines chosen, while the first cutouts are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from galbatch import cluster, models
from galbatch.catalog import pass_outputs
from galbatch.config import CatalogConfig, ModelConfig, PosteriorConfig, RunConfig, SurveyConfig
from galbatch.errors import BundleError, ConfigError, MissingBundleError, PausesSpent, Stopped
from galbatch.execution import leaf
from galbatch.execution.submission import Pauses, reason_of
from galbatch.planning import Plan, with_engines

__all__ = ["EngineChoice", "fed_columns", "networks_of_run", "paths_of"]


Network = TypeVar("Network", bound="models.EnsembleInfo")


def networks_of_run(config: RunConfig, *, loads: bool) -> tuple[Sequence[models.EnsembleInfo], list[str]]:
    """Return what is known of each network of a run, and the name of its engine, "" for one that is still to be chosen.

    Parameters
    ----------
    config : RunConfig
    loads : bool
        Whether the networks are loaded and checked, and all engines chosen. They are, too, where outputs exist that do not tell the
        engine of each network.

    Raises
    ------
    BundleError, ConfigError
        A bundle cannot be used, or does not fit the run.
    """
    engines = _known_engines(config)
    if engines is not None and not loads:
        return [_read(model, config) for model in config.networks], engines
    loaded = [_load(model, config) for model in config.networks]
    return loaded, _choose_engines(config, loaded)


class EngineChoice:
    """The check of a plan's networks and the choice of their engines, in a thread, while the run's workers cut.

    A bundle whose file is gone, or whose store does not answer, is waited for as long as the run may pause. Closing it ends the waiting.

    Parameters
    ----------
    config : RunConfig
    plan : Plan
    note : callable
        Takes human-readable lines, in the thread that calls `require` or `plan`.
    """

    def __init__(self, config: RunConfig, plan: Plan, note: Callable[[str], None]) -> None:
        self._config = config
        self._plan = plan
        self._note = note
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._closed = Event()
        self._completed: Future[Plan] | None = None

    def begin(self) -> None:
        """Begin in a thread, if it has not begun and the plan lacks engines."""
        if self._completed is None and not self._plan.has_engines:
            threads = ThreadPoolExecutor(1, thread_name_prefix="bundles")
            self._completed = threads.submit(self._when_there)
            threads.shutdown(wait=False)

    def close(self) -> None:
        """Let the thread end, which waits no more."""
        self._closed.set()

    def require(self) -> None:
        """Raise what was found to be wrong so far.

        Raises
        ------
        BundleError
            A network does not behave as its bundle says, or cannot be run as ``[posterior]`` asks for.
        PausesSpent
            The file of a bundle did not come back, or its store did not answer, as long as the run may wait.
        """
        while not self._lines.empty():
            self._note(self._lines.get())
        if self._completed is not None and self._completed.done():
            self._completed.result()

    def plan(self, check: Callable[[], None]) -> Plan:
        """Return the plan with the engines of its networks; waits for them, calling `check` each second, and raises as `require` does."""
        self.begin()
        if self._completed is None:
            return self._plan
        while not wait([self._completed], timeout=1.0).done:
            check()
        self.require()
        return self._completed.result()

    def _when_there(self) -> Plan:
        limit_s = self._config.cluster.pause_limit
        pauses = Pauses(limit_s, self._lines.put)
        try:
            return pauses.until_it_works(self._complete, sleep=self._sleep)
        except (MissingBundleError, OSError) as error:
            if not pauses.is_spent:
                raise
            raise PausesSpent(
                f"{reason_of(error)}, still after {limit_s:g} s of pauses ([cluster] pause_limit); what is done stays, the same "
                "command continues from there"
            ) from error

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Stopped("the run has ended")

    def _complete(self) -> Plan:
        # The files that the plan was made of: one that was replaced since is refused.
        loaded = [
            _load(model, self._config, planned.sha256)
            for model, planned in zip(self._config.networks, self._plan.models, strict=True)
        ]
        return with_engines(self._plan, self._config, _choose_engines(self._config, loaded))


def _read(model: ModelConfig, config: RunConfig) -> models.EnsembleInfo:
    """Return what the bundles of a ``[[models]]`` section say, after checking that they fit each other and the run."""
    return _fitting(model, config, models.read_ensemble_info)


def _load(model: ModelConfig, config: RunConfig, sha256: Sequence[str] | None = None) -> models.Ensemble:
    """Load the bundles of a ``[[models]]`` section, with the same checks as `_read`; `sha256` are the hashes that they must have."""
    return _fitting(model, config, partial(models.load_ensemble, sha256=sha256))


def _fitting(model: ModelConfig, config: RunConfig, opened: Callable[..., Network]) -> Network:
    """Return the network that `opened` makes of a section's bundles; refuse it if it does not fit the run's bands and columns."""
    where = f"run.toml: [[models]] {model.name}:"
    try:
        network = opened(
            paths_of(model.bundle),
            calibrated=model.calibrated,
            embedding_dtype=model.embedding_dtype if model.embedding else None,
            densities=model.densities,
        )
    except BundleError as error:
        # A file that is missing may come back: its kind of error says so.
        raise type(error)(f"{where} {error}") from None
    # Bands are matched by position: [[models]] bands renames them, so their number is all that can be compared.
    bands = model.bands or tuple(network.bands)
    if len(bands) != len(network.bands):
        raise ConfigError(
            f"{where} bands names {len(bands)} bands, the bundle takes {len(network.bands)} ({', '.join(network.bands)})"
        )
    missing = [band for band in bands if band not in config.bands]
    if missing and not config.bands:
        raise ConfigError(
            f"{where} takes images in {', '.join(bands)}, and there is no [survey] to cut them from; add it"
        )
    if missing:
        raise ConfigError(
            f"{where} needs band {', '.join(missing)}; [survey] bands has {', '.join(config.bands)}: add it there, or name "
            "the bands to feed with [[models]] bands"
        )
    _require_same_reddening(where, network, config.survey, bands)
    auxiliary_inputs(model, network.metadata.input.auxiliary_inputs)
    return network


def _require_same_reddening(
    where: str, network: models.EnsembleInfo, surveys: Sequence[SurveyConfig], bands: Sequence[str]
) -> None:
    """Refuse a network that was trained on dereddened fluxes where a survey's are not, or the other way round."""
    trained = network.metadata.input.dereddened
    for survey in surveys:
        own = [band for band in bands if band in survey.run_bands]
        if trained is not None and own and survey.dereddened != trained:
            words = {
                True: "fluxes that are corrected for Galactic extinction",
                False: "fluxes as observed, not corrected for Galactic extinction",
            }
            raise ConfigError(
                f"{where} was trained on {words[trained]}; [survey] dereddened = {str(survey.dereddened).lower()} says that the tiles in "
                f"{', '.join(own)} have {words[survey.dereddened]}: correct that key if it is wrong, or take another bundle"
            )


def auxiliary_inputs(
    model: ModelConfig, taken: Sequence[models.AuxiliaryInput]
) -> list[tuple[str, int | None]]:
    """Return the columns of the object list that a network is fed, with the length of vectors; `taken` is what the bundle states."""
    names = model.auxiliary_inputs or tuple(one.name for one in taken)
    if len(names) != len(taken):
        raise ConfigError(
            f"run.toml: [[models]] {model.name}: auxiliary_inputs names {len(names)} columns, the bundle "
            f"takes {len(taken)} ({', '.join(one.label for one in taken) or 'none'})"
        )
    return [(name, one.length) for name, one in zip(names, taken, strict=True)]


def fed_columns(networks: Sequence[ModelConfig], taken: Sequence[models.InputInfo]) -> dict[str, int | None]:
    """Return the columns of the object list that any network is fed, each once, with the length of vectors, in the order of run.toml.

    Raises
    ------
    ConfigError
        A bundle does not take as many columns as are named, or one takes numbers or vectors of other lengths from a column than another.
    """
    found: dict[str, int | None] = {}
    for model, of_network in zip(networks, taken, strict=True):
        for name, length in auxiliary_inputs(model, of_network.auxiliary_inputs):
            if found.setdefault(name, length) != length:
                raise ConfigError(
                    f"run.toml: [[models]] {model.name}: takes column {name} with {length or 1} numbers in each row, and another network "
                    f"takes {found[name] or 1}; name another column in auxiliary_inputs"
                )
    return found


def paths_of(specs: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of bundles, some of which may be given as ``demo:NAME``."""
    return tuple(models.bundle_path(spec) for spec in specs)


def _known_engines(config: RunConfig) -> list[str] | None:
    """Return the engine of each network as leaves tell, each "" where there are no outputs; None: the networks are needed to tell."""
    recorded = _recorded(config.catalog)
    # Pass outputs of a run that was stopped before its first leaf have an engine in their fingerprint, too.
    if not recorded and not pass_outputs.list_done(config.catalog.path):
        return [""] * len(config.networks)
    engines = [_if_asked(recorded.get(model.name, ""), config.posterior) for model in config.networks]
    return engines if all(engines) else None


def _choose_engines(config: RunConfig, networks: Sequence[models.Ensemble]) -> list[str]:
    """Return the engine of each network: the one in the leaves that exist, or of the base, if it is still asked for, else the best available."""
    recorded = _recorded(config.catalog)
    wanted, device = config.posterior, cluster.kind_of(config.cluster).device
    return [
        _if_asked(recorded.get(model.name, ""), wanted)
        or models.choose_engine(network, kind=wanted.engine, precision=wanted.precision, device=device).name
        for model, network in zip(config.networks, networks, strict=True)
    ]


def _recorded(catalog: CatalogConfig) -> dict[str, str]:
    """Return the engine of each network, by its name, as the leaves of the catalog or of its base have it."""
    recorded = leaf.recorded_engines(catalog.path)
    if not recorded and catalog.base:
        # Values of another engine differ in their last digits, so none could be taken.
        recorded = leaf.recorded_engines(catalog.base)
    return recorded


def _if_asked(engine: str, posterior: PosteriorConfig) -> str:
    """Return the engine that a network's leaves were begun with, if it is still asked for; else ""."""
    # Engines differ in their last digits: a continued run keeps the engine that it began with, so that "auto" on another
    # machine does not mix two.
    kind, _, precision = engine.partition("-")
    is_asked = posterior.engine in ("auto", kind) and posterior.precision in ("auto", precision)
    return engine if is_asked else ""
