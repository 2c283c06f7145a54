"""What each small piece of the data path saves: the piece as it is, beside the plain way of doing the same.

In the ordinary run every benchmark is a test: it runs once and says whether both ways give the same. They measure when
asked to:

    pytest tests/benchmarks --benchmark-enable --benchmark-group-by=group

The rows of one group do the same work. `test_floor.py` has what a row costs that does nothing: the smallest ones are
mostly that.
"""
