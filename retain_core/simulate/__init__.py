"""The Gaussian-mixture simulation of "Retaining by Doing" (arXiv 2510.18874): forward against reverse KL.

`mixture` is the target and how much of it a policy covers, `dynamics` the two methods, `matched` what is read off a run,
`sweep` where the conclusion ends, `published` the figures to set beside, `text` what `retain simulate` prints.
"""
