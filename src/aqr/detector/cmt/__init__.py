"""The parts of a detector as CMT has them (arXiv 2301.01283): the same numbers from the same weights."""
