"""Labelled data: examples, the files and Hub data sets that they come from, and the checks on them."""
