"""A survey with known truth, in any survey's own files: for the demo, training, tests, benchmarks.

The only door to GalSim. `draw_population` draws galaxies of one of two populations (`paper`: the GaMPEN paper's Table 1;
`survey`: limited by magnitude, among neighbors and stars), `draw_stamps` makes stamps of them, `training_set` both;
`simulate_survey` writes a survey's tiles or stamps with an object list and the truth.
"""

from galbatch.simulation.light.camera import PIXEL_SCALE_ARCSEC
from galbatch.simulation.population import draw_population, require_population
from galbatch.simulation.stamps import SKIES, Sky, TrainingSet, draw_stamps, training_set
from galbatch.simulation.survey import SimulatedSurvey, simulate_survey

__all__ = [
    "PIXEL_SCALE_ARCSEC",
    "SKIES",
    "SimulatedSurvey",
    "Sky",
    "TrainingSet",
    "draw_population",
    "draw_stamps",
    "require_population",
    "simulate_survey",
    "training_set",
]
