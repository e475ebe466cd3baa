"""Dots that walk on a dark frame that is wider than high: a whole data set in one folder."""
