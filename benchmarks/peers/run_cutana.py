"""Cut a list of sources with Cutana into Zarr, float32, without resizing: run by the peers' Python.

usage: run_cutana.py CATALOG.csv OUTPUT_FOLDER SIZE_PX WORKERS
"""

import sys

from cutana import Orchestrator, get_default_config
from cutana.system_monitor import SystemMonitor


def main() -> None:
    """Run Cutana with as many workers as asked for, from its start on."""
    catalog, output, size_px, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # It keeps one core free: without this it would run one worker on two cores.
    SystemMonitor.get_cpu_count = lambda self: workers + 1
    config = get_default_config()
    config.source_catalogue = catalog
    config.output_dir = output
    config.output_format = "zarr"
    config.data_type = "float32"
    config.normalisation_method = "none"
    config.apply_flux_conversion = False
    config.target_resolution = size_px
    config.selected_extensions = [{"name": "IMAGE", "ext": "ImageHDU"}]
    config.fits_extensions = ["IMAGE"]
    config.channel_weights = {"IMAGE": [1.0]}
    config.max_workers = workers
    config.loadbalancer.initial_workers = workers
    config.loadbalancer.skip_memory_calibration_wait = True
    config.loadbalancer.main_process_memory_reserve_gb = 1.0
    # As many jobs as workers: its default of 12,500 sources a job would keep one worker alone busy.
    config.loadbalancer.max_sources_per_process = 3000
    config.skip_catalogue_validation = True
    config.skip_fits_check = True
    result = Orchestrator(config).run()
    print(result)


if __name__ == "__main__":
    main()
