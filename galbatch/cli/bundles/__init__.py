"""The commands ``galbatch models ...``, which list, train, calibrate and convert bundles."""
