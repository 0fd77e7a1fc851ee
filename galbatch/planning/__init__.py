"""Objects, tiles and config -> partitions with projected bytes and memory."""
