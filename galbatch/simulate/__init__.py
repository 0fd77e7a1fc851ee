"""A survey with known truth, in the survey's own file layout: for the demo, training, tests, benchmarks.

The only door to GalSim. `draw_population` draws galaxies of the GaMPEN paper's Table 1, `draw_stamps`
makes stamps of them, `simulate_survey` a survey of HSC patches with an object list and the truth.
"""

from galbatch.simulate.population import draw_population
from galbatch.simulate.stamps import SKIES, Sky, TrainingSet, draw_stamps, training_set
from galbatch.simulate.survey import SimulatedSurvey, simulate_survey

__all__ = [
    "SKIES",
    "SimulatedSurvey",
    "Sky",
    "TrainingSet",
    "draw_population",
    "draw_stamps",
    "simulate_survey",
    "training_set",
]
