"""Samplers choose the levels that the slots play.

A slot is one of N parallel environments. It plays the R levels of its queue in turn, for one or
more updates. During this time the slot is busy; after it, the slot is free and gets new levels. The
weight of a slot scales its data in the student's loss, so that the student does not train on a slot
of weight 0. A sampler with a level buffer stores each level in one row of the buffer.
"""
