"""Simulation or store joined with models: training and calibration."""
