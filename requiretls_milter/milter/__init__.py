"""Receiving: libmilter's callbacks, one message's state, its requirement and its tag."""
