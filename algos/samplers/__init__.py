"""Samplers choose the levels that the slots play.

A slot is one of N parallel environments. It plays the R levels of its queue in turn, for one or
more updates. During these updates the slot is busy. Afterwards the slot is free and gets new
levels. The student's loss multiplies the data of a slot by the weight of the slot. The student
therefore does not train on slots of weight 0. A sampler with a level buffer stores each level in
one row of the buffer.
"""
