"""Simulated galaxies and surveys with known truth, for the demo, training, tests and benchmarks.

`draw_population` draws the parameters of galaxies from one of two populations: `paper` (Table 1 of the GaMPEN paper) or
`survey` (limited by magnitude, with neighbors and stars). `draw_stamps` makes images of them, and `training_set` does
both. `simulate_survey` writes the tiles or stamps of a survey in that survey's file formats, with an object list and the
truth. No other package of galbatch imports GalSim.
"""

from galbatch.simulation.injection import BandLight, InjectedLight, with_survey_bands
from galbatch.simulation.light.camera import PIXEL_SCALE_ARCSEC
from galbatch.simulation.population import POPULATIONS, draw_population, require_population
from galbatch.simulation.stamps import SKIES, Sky, TrainingSet, draw_stamps, training_set
from galbatch.simulation.survey import SimulatedSurvey, simulate_survey
from galbatch.simulation.writers import WRITERS

__all__ = [
    "PIXEL_SCALE_ARCSEC",
    "POPULATIONS",
    "SKIES",
    "WRITERS",
    "BandLight",
    "InjectedLight",
    "SimulatedSurvey",
    "Sky",
    "TrainingSet",
    "draw_population",
    "draw_stamps",
    "require_population",
    "simulate_survey",
    "training_set",
    "with_survey_bands",
]
