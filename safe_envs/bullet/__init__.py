"""Ports of two tasks of Bullet-Safety-Gym (Gronauer 2022) to Gymnasium, on pybullet alone.

Physics, observations, rewards and costs are those of the version that the paper used: the git
repository SvenGronauer/Bullet-Safety-Gym, not the package on PyPI, which is a fork with other
constants. Recorded episodes of the original are replayed in the tests.

Three faults of the original are mended: its moving box follows the wall clock (here, simulated
time), motor targets survive a reset (here, they are cleared), and its randomness cannot be seeded.
"""
