"""A survey with known truth, in the survey's own file layout: for the demo, training, tests, benchmarks.

The only door to GalSim. `draw_population` draws galaxies of the GaMPEN paper's Table 1, `draw_stamps`
makes pixels of them.
"""

from galbatch.simulate.population import draw_population
from galbatch.simulate.stamps import draw_stamps

__all__ = ["draw_population", "draw_stamps"]
