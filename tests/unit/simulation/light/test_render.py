import galsim
import numpy as np
import pytest

from galbatch.simulation import PIXEL_SCALE_ARCSEC
from galbatch.simulation.light.fourier import Psf, sersic_table, sersic_transform
from galbatch.simulation.light.render import Component, draw_light
from galbatch.simulation.light.sources import Profiles, paint

PSF = Psf(0.75, 0.02, -0.01)


def drawn_by_galsim(component, offset_px):
    """GalSim's own drawing, with Fourier grids large enough to hold all but 0.05 % of the light."""
    accurate = galsim.GSParams(maximum_fft_size=32768, folding_threshold=5e-4, stepk_minimum_hlr=20)
    radius = component.re_arcsec * component.axis_ratio**0.5
    galaxy = galsim.Sersic(component.n, half_light_radius=radius, gsparams=accurate)
    galaxy = galaxy.shear(q=component.axis_ratio, beta=component.angle_deg * galsim.degrees)
    psf = galsim.Moffat(beta=3.5, fwhm=PSF.fwhm_arcsec).shear(g1=PSF.g1, g2=PSF.g2)
    # GalSim's center of an even image lies between pixels; ours is the center of pixel size // 2.
    center = galsim.PositionD(offset_px[0] + 0.5, offset_px[1] + 0.5)
    image = galsim.Convolve(galaxy, psf, gsparams=accurate).drawImage(
        nx=96, ny=96, scale=PIXEL_SCALE_ARCSEC, offset=center, dtype=float
    )
    return image.array


@pytest.mark.parametrize(
    "component",
    [
        Component(1.0, 1.0, 0.6, 20.0), Component(0.8, 5.0, 0.25, 0.0), Component(4.0, 0.1, 0.5, 0.0),
        Component(4.5, 3.0, 0.5, 70.0), Component(5.0, 5.0, 0.9, -40.0), Component(3.87, 1.2, 0.6, 15.0),
    ],
    ids=["disk", "large thin disk", "tiny bulge", "bulge", "largest bulge", "n between tables"],
)  # fmt: skip
def test_light_is_what_galsim_draws(component):
    ours = draw_light([component], [[1e6]], [PSF], size_px=96, offset_px=(0.3, -0.4))[0]
    theirs = drawn_by_galsim(component, (0.3, -0.4)) * 1e6
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=3e-4 * theirs.max())
    assert ours.sum() == pytest.approx(theirs.sum(), rel=5e-4)


def test_light_of_a_compact_galaxy_is_conserved_in_each_band():
    components = [Component(1.0, 0.4, 0.7, 10.0), Component(4.0, 0.1, 0.7, 10.0)]
    light = draw_light(components, [[1e5, 3e5], [2e4, 1e4]], [PSF, Psf(0.9)], size_px=96)
    np.testing.assert_allclose(light.sum(axis=(1, 2)), [1.2e5, 3.1e5], rtol=2e-3)


def test_center_is_where_it_is_asked_for():
    y, x = np.mgrid[:96, :96]
    light = draw_light([Component(1.0, 0.5, 0.5, 30.0)], [[1.0]], [PSF], size_px=96, offset_px=(0.3, -0.4))[0]
    centroid = [(axis * light).sum() / light.sum() for axis in (x, y)]
    np.testing.assert_allclose(centroid, [48.3, 47.6], atol=0.01)


def test_a_galaxy_beside_the_edge_does_not_wrap_around():
    light = draw_light([Component(1.0, 0.5, 1.0, 0.0)], [[1e6]], [PSF], size_px=100, offset_px=(-45.0, 0.0))[
        0
    ]
    assert light[:, :10].sum() > 5e5
    assert abs(light[:, 70:]).max() < 0.1


@pytest.mark.parametrize("n", [0.83, 1.0, 2.05, 3.55, 4.27, 4.95])
def test_tables_are_galsim_s_transform_for_any_n(n):
    k = np.geomspace(1e-2, 300, 60)
    theirs = np.array([galsim.Sersic(n, half_light_radius=1.0).kValue(value, 0).real for value in k])
    np.testing.assert_allclose(sersic_transform(sersic_table(n)[None], (k**2)[None])[0], theirs, atol=3e-4)


def test_sources_are_drawn_as_single_galaxies_are():
    """Two overlapping galaxies and a star in a crowd, against each drawn alone on a large grid."""
    shapes = [Component(1.0, 0.5, 0.6, 20.0), Component(3.3, 0.7, 0.8, -50.0)]
    places = np.array([[40.3, 52.8], [61.0, 45.5], [20.2, 30.1]])
    columns = [np.array([getattr(s, name) for s in shapes] + [end]) for name, end in (
        ("n", 1.0), ("re_arcsec", 0.0), ("axis_ratio", 1.0), ("angle_deg", 0.0))]  # fmt: skip
    flux = np.array([[900.0], [4000.0], [2e4]])
    canvas = np.zeros((1, 96, 96))
    paint(canvas, Profiles(places, *columns, flux, flux[:, 0]), [[PSF]])
    star = Component(1.0, 1e-3, 1.0, 0.0)
    alone = sum(
        draw_light([shape], f[None], [PSF], size_px=96, offset_px=tuple(place - 48))
        for shape, place, f in zip([*shapes, star], places, flux, strict=True)
    )
    assert abs(canvas - alone).max() < 0.2  # nJy: a tenth of the sky's sigma
    assert canvas.sum() == pytest.approx(alone.sum(), rel=5e-3)  # a box holds the light beyond it, too
