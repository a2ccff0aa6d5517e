"""The parity toy of RL's Razor (arXiv 2509.04259): does forward KL on the new inputs predict what is forgotten?

`images` is the data, `network` many small networks at once, `methods` the five arms, `divergence` how far a policy is from
its base, `training` pre-training and fine-tuning, `law` and `matched` what is read off, `published` the figure to set
beside, `run` what is run and written, `text` what `retain simulate --toy parity` prints.
"""
