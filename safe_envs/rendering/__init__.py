"""Drawing on frames: the canvas, gauges, and a painter for each task."""
