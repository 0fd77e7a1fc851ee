"""The comparison of images with numbers: three networks, of images, of numbers and of both, are trained on one split and compared."""
